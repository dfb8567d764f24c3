"""The options of `townhall chat`, and which model file they mean."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.sampler_settings import DECLARED, SamplerSettings, sampler_values
from townhall.conversation import MAX_REPLY, REPEAT_PENALTY, TEMPERATURE
from townhall.errors import ModelError

if TYPE_CHECKING:
    from app.models.llama import SamplingParams

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "app" / "models" / "llama" / "weights"
DEFAULT_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class ChatOptions(SamplerSettings):
    """What flags and settings files come to."""

    temperature: float = TEMPERATURE
    repeat_penalty: float | None = None  # type: ignore[assignment]  # depends on what is asked for
    model: Path | None = None
    personality: str = "stacy"
    prompt: str | None = None
    count: int = MAX_REPLY
    seed: int | None = None
    max_context: int = 1024
    context: str = "slide"
    format: str = "auto"
    timing: bool = False
    profile: bool = False
    markdown: bool = False
    size: str | None = None
    gen: str | None = None
    quantize: str | None = None
    eos: tuple[str, ...] = ()
    device: str | None = None
    require: str | None = None
    json: bool = False
    cache: bool = True
    log: bool = True
    log_to: Path | None = None

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every option's default, in the order in which people meet them."""
        values = vars(cls())
        first = ("model", "personality", "prompt", "count", *DECLARED)
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

    def that_matter(self) -> dict[str, Any]:
        """All that an answer depends on, in plain values: what it takes to do the same again."""
        names = ("model", "size", "gen", "quantize", "eos", "personality", "format", "context", "max_context", "count")
        values = {name: getattr(self, name) for name in (*names, *DECLARED)}
        if self.model is not None and not self.fake:
            values["model"] = self.model.absolute()
        if Path(self.personality).is_file():
            values["personality"] = Path(self.personality).absolute()
        return {
            name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def model_key(self) -> tuple[Any, ...]:
        """Equal for all that one loaded model serves. ModelError where there is none."""
        path = str(self.model) if self.fake else str(self.model_path().resolve())
        return (path, self.max_context, self.quantize, self.eos)

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


def _short(path: Path) -> Path:
    """Relative to where the user stands, where that is shorter to read."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
