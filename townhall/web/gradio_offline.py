"""Gradio, told before it is imported that it has nobody to call."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_SSR_MODE"] = "False"  # a Node server beside this one

import gradio as gr

__all__ = ["gr"]
