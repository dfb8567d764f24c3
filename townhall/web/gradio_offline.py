"""Settings that keep Gradio offline, made before it is imported."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_SSR_MODE"] = "False"  # a Node server beside this one

import gradio as gr

__all__ = ["gr"]
