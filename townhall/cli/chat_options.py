"""The options of `townhall chat`, each declared once, and which model file they mean."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.sampler_settings import DECLARED, SamplerSettings, sampler_values
from townhall.adapter_spec import NONE, AdapterSpec
from townhall.context.strategies import STRATEGIES
from townhall.conversation import MAX_REPLY, REPEAT_PENALTY, REPLY_NGRAM_PENALTY, TEMPERATURE
from townhall.errors import ModelError
from townhall.template import FORMATS

if TYPE_CHECKING:
    from app.models.llama import SamplingParams

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "app" / "models" / "llama" / "weights"
DEFAULT_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Option:
    """One option of a chat, declared once: its field makes the flag (flags.py) and the settings files' key (settings_schema.py)."""

    kind: type  # of the value: int, bool, str or Path
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    least: int | None = None
    allowed: str = ""  # what a text must be, in a sentence of a settings file's fault
    optional: bool = False  # null in a settings file: left to the program
    repeated: bool = False  # a flag that may be given several times; a list in a settings file
    flag_alone: bool = False  # not a key of settings files
    value_when_bare: str | None = None  # of a flag without a value

    @property
    def description(self) -> str:
        """What a settings file may say."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind is int:
            return f"a whole number from {self.least}"
        return "true or false" if self.kind is bool else self.allowed


def _option(default: Any, kind: type, help: str, **rest: Any) -> Any:
    return field(default=default, metadata={"option": Option(kind, help, **rest)})


@dataclass(frozen=True)
class ChatOptions(SamplerSettings):
    """What flags and settings files come to."""

    temperature: float = TEMPERATURE
    reply_ngram_penalty: float = REPLY_NGRAM_PENALTY
    repeat_penalty: float | None = None  # type: ignore[assignment]  # depends on what is asked for
    model: Path | None = _option(
        None, Path, "model file, or fake:echo or fake:script=FILE  [default: the one that pull_llama.sh fetches]",
        allowed="the path of a model", optional=True,
    )  # fmt: skip
    personality: str = _option(
        "stacy", str, "stacy, george, gary, lexie, or a YAML file", metavar="NAME", allowed="a persona's name or the path of its file"
    )
    greeting: int = _option(1, int, "which of a card's greetings the talk begins with", metavar="N", least=1)
    lorebook: tuple[str, ...] = _option(
        (), str, "world info that enters the prompt when its keys are found; may be repeated", metavar="FILE",
        allowed="a list of lorebooks' paths, each in quotes", repeated=True,
    )  # fmt: skip
    knowledge: tuple[str, ...] = _option(
        (), str, "have answers from this library, or from a folder or file; may be repeated", metavar="NAME|PATH",
        allowed="a list of libraries' names or paths, each in quotes", repeated=True,
    )  # fmt: skip
    prompt: str | None = _option(None, str, "complete this text, without a persona, and exit", metavar="TEXT", flag_alone=True)
    count: int = _option(MAX_REPLY, int, "tokens in an answer, at most", metavar="N", least=1)
    seed: int | None = _option(
        None, int, "the same seed gives the same answers  [default: a new one each time]", metavar="S", least=0, optional=True
    )
    max_context: int | None = _option(
        None, int, "context window in tokens  [default: 1024, or what the model was trained for if that is less]", metavar="N", least=1,
        optional=True,
    )  # fmt: skip
    kv: str = _option("f16", str, "what the context is kept as: q8_0 takes about half the memory", choices=("f16", "q8_0"))
    context: str = _option("slide", str, "how a long talk is made to fit", choices=tuple(STRATEGIES))
    via: str | None = _option(
        None, str, "have answers from a model on this OpenAI-compatible server; the local one stands in where it is away", metavar="URL",
        allowed="the address of an API, such as http://127.0.0.1:8000/v1", optional=True,
    )  # fmt: skip
    via_model: str | None = _option(
        None, str, "which of the server's models answers", metavar="NAME", allowed="a model's name; put it in quotes", optional=True
    )
    via_key: str | None = _option(
        None, str, "environment variable that holds the key  [default: TOWNHALL_VIA_KEY; OPENAI_API_KEY for api.openai.com]",
        metavar="VARIABLE", allowed="the name of an environment variable, and no key", optional=True,
    )  # fmt: skip
    via_timeout: int = _option(60, int, "seconds of silence before the server counts as away", metavar="S", least=1)
    via_price: tuple[str, ...] = _option(
        (), str, "what a million tokens of prompts and of answers cost there; may be repeated", metavar="MODEL=PROMPT/ANSWER",
        allowed="a list of prices, each in quotes: MODEL=PROMPT/ANSWER CURRENCY, for a million tokens", repeated=True,
    )  # fmt: skip
    compress: int | None = _option(
        None, int, "send memory and newest exchanges within so many tokens (needs --via, implies --context summarize)", metavar="N",
        least=64, optional=True,
    )  # fmt: skip
    enrich: str = _option(
        "off", str, "have the local model rewrite questions so that they can be understood alone; ask: you see both and choose",
        choices=("off", "ask", "always"),
    )  # fmt: skip
    format: str = _option("auto", str, "prompt format; auto follows the model", choices=("auto", *FORMATS))
    think: bool | None = _option(None, bool, "have a reasoning model think first, or not  [default: as its template has it]", optional=True)
    think_tokens: int | None = _option(None, int, "tokens of thoughts, at most", metavar="N", least=1, optional=True)
    timing: bool = _option(False, bool, "print tokens and seconds after each answer")
    profile: bool = _option(False, bool, "print where the time went at the end")
    markdown: bool = _option(False, bool, "show answers in Markdown as it is meant, at a terminal")
    size: str | None = _option(
        None, str, "7B, 13B, …: a folder under app/models/llama/weights, instead of --model", metavar="SIZE",
        allowed="a folder's name, such as 7B; put it in quotes", optional=True,
    )  # fmt: skip
    gen: str | None = _option(
        None, str, "LLaMA generation that --size belongs to  [default: 1]", metavar="GEN",
        allowed="a LLaMA generation; put it in quotes", optional=True,
    )  # fmt: skip
    quantize: str | None = _option(
        None, str, "make float weights 8-bit integers", metavar="[int8]", choices=("int8",), optional=True, value_when_bare="int8"
    )
    lora: tuple[str, ...] = _option(
        (), str, "lay an adapter over the model: peft's or mlx-lm's folder, or a GGUF; may be repeated; none: not the persona's",
        metavar="PATH[:SCALE]", allowed="a list of adapters' paths, each perhaps with a colon and a scale behind it", repeated=True,
    )  # fmt: skip
    speculate: str | None = _option(
        None, str, "guess tokens that stood in the window before; texts stay the same", metavar="[lookup]", choices=("lookup",),
        optional=True, value_when_bare="lookup",
    )  # fmt: skip
    draft: Path | None = _option(
        None, Path, "guess tokens with this smaller model of the same vocabulary; texts stay the same", metavar="PATH",
        allowed="the path of a model", optional=True,
    )  # fmt: skip
    eos: tuple[str, ...] = _option(
        (), str, "end an answer at this token (or id) and at no other; may be repeated", metavar="TOKEN",
        allowed="a list of tokens, each in quotes", repeated=True,
    )  # fmt: skip
    device: str | None = _option(
        None, str, "CPU, CL, CL:1, CUDA, … or part of a name that townhall devices lists; wins over DEV", metavar="NAME",
        allowed="a device's name, or a part of it", optional=True,
    )  # fmt: skip
    require: str | None = _option(
        None, str, "end with an error unless the weights sit on such a device", choices=("gpu", "cpu"), optional=True
    )
    cache: bool = _option(True, bool, "store and restore what the model read of a persona  [default: do]")
    log: bool = _option(True, bool, "keep the conversation as a text file (see townhall log)  [default: do]")
    log_to: Path | None = _option(
        None, Path, "in this folder, or at the end of this .md file  [default: your data folder]", metavar="PATH",
        allowed="the path of a folder, or of a file that ends in .md", optional=True,
    )  # fmt: skip
    json: bool = _option(False, bool, "print one JSON object per answer", flag_alone=True)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every option's default, in the order in which people meet them."""
        values = vars(cls())
        first = ("model", "personality", "greeting", "lorebook", "knowledge", "prompt", "count", *DECLARED)
        return {name: values[name] for name in (*first, *(name for name in values if name not in first))}

    def sampling(self) -> "SamplingParams":
        """Checked; SamplingError names the flag.

        The penalty keeps a chat from going round in circles; a text that is to be carried on is left as the model has it.
        """
        from app.models.llama import SamplingParams

        values = sampler_values(self)
        if values["repeat_penalty"] is None:
            values["repeat_penalty"] = REPEAT_PENALTY if self.prompt is None else 1.0
        return SamplingParams(**values, seed=self.seed)

    @property
    def strategy(self) -> str:
        """The context strategy: what is compressed needs a memory."""
        return self.context if self.compress is None else "summarize"

    def that_matter(self) -> dict[str, Any]:
        """All that an answer depends on, in plain values: what it takes to do the same again."""
        names = (
            "model",
            "size",
            "gen",
            "quantize",
            "eos",
            "personality",
            "format",
            "context",
            "max_context",
            "kv",
            "count",
            "think",
            "think_tokens",
        )
        values = {name: getattr(self, name) for name in (*names, *DECLARED)}
        if self.model is not None and not self.fake:
            values["model"] = self.model.absolute()
        if self.lora:  # older logs know no such setting
            values["lora"] = tuple(text if text == NONE else str(AdapterSpec.parse(text)) for text in self.lora)
        if Path(self.personality).is_file():
            values["personality"] = Path(self.personality).absolute()
        if self.compress is not None:
            values["compress"] = self.compress
        if self.via is not None:
            values |= {"via": self.via, "via_model": self.via_model}
        if self.greeting != 1:
            values["greeting"] = self.greeting
        if self.lorebook:
            values["lorebook"] = tuple(str(Path(name).expanduser().absolute()) for name in self.lorebook)
        if self.knowledge:
            values["knowledge"] = tuple(str(Path(name).expanduser().absolute()) if _is_path(name) else name for name in self.knowledge)
        return {
            name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def model_key(self) -> tuple[Any, ...]:
        """Equal for all that one loaded model serves. ModelError where there is none."""
        path = str(self.model) if self.fake else str(self.model_path().resolve())
        return (path, self.max_context, self.kv, self.quantize, self.eos, self.speculate, self.draft)

    def model_bytes(self) -> int:
        """What its files take on the disk: about as much as they will in memory."""
        if self.fake:
            return 0
        path = self.model_path()
        files = path.iterdir() if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())

    @property
    def fake(self) -> bool:
        """Is the model a double, without weights?"""
        return str(self.model).startswith("fake:")

    def model_path(self) -> Path:
        """The file or folder to load; ModelError where there is none."""
        if self.model is not None:
            if self.size or self.gen:
                raise ModelError("--model and --size/--gen both name a model; pass one of them")
            if not self.model.exists():
                raise ModelError(f"--model {self.model} does not exist; pass the path of a GGUF file")
            return self.model
        if self.size or self.gen:
            size, gen = self.size or "7B", self.gen or "1"
            folder = WEIGHTS / size if gen == "1" else WEIGHTS / f"LLaMA-{gen}" / size
            if not folder.exists():
                raise ModelError(
                    f"--size {size} --gen {gen} means {_short(folder)}, which does not exist; "
                    f"fetch it with `PRESIGNED_URL=… bash pull_llama.sh {size}` in {_short(WEIGHTS)}, or pass --model"
                )
            return folder
        path = WEIGHTS / DEFAULT_MODEL
        if not path.exists():
            script = _short(WEIGHTS / "pull_llama.sh")
            make = "`make chat`, or " if (ROOT / "Makefile").is_file() else ""  # a wheel has none
            raise ModelError(f"the default model is not there yet: run {make}`bash {script}`, or pass --model")
        return path


def _is_path(name: str) -> bool:
    """A library's name is none."""
    return "/" in name or name.startswith("~")


def as_word(key: str, value: Any) -> Any:
    """What YAML made of a word: it reads off as false, which among a setting's choices is the word."""
    choices = OPTIONS[key].choices if key in OPTIONS else ()
    return "off" if value is False and "off" in choices else value


def in_one_line(texts: tuple[str, ...]) -> str:
    """A list as a person reads it: JSON where a text holds what does not show."""
    return ", ".join(texts) if all(map(str.isprintable, texts)) else json.dumps(texts, ensure_ascii=False)


def _short(path: Path) -> Path:
    """Relative to where the user stands, where that is shorter to read."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


OPTIONS: dict[str, Option] = {one.name: one.metadata["option"] for one in fields(ChatOptions) if "option" in one.metadata}
