"""What a strategy may ask the view for, each declared once: its name, its shape, and who gives it.

passes: models or dropout passes behind mc_probs, draws behind dropped_probs. loss_weight: of the pair loss beside the
task's, where losses are learnt. vae_epochs, adversarial: epochs of the VAE of VAAL and TA-VAAL, and the weight of its
adversarial term.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lalib.data.checks import LalibError, check_int, check_known, check_number
from lalib.data.door import LARGEST, as_tensor, check_codes, within

PASSES, LOOKS, VAE_EPOCHS, ADVERSARIAL, LOSS_WEIGHT = 5, 3, 20, 1.0, 1.0  # defaults of the settings below


@dataclass(frozen=True)
class Setting:
    """A number that a source depends on: its default and the least legal value. It is whole if the default is."""

    default: float
    low: float = 0

    def checked(self, name: str, value: float) -> float:
        """`value` as a Python number; TypeError or ValueError if it is not legal."""
        return (check_int if isinstance(self.default, int) else check_number)(name, value, low=self.low)


@dataclass(frozen=True, eq=False)
class Source:
    """Something that a strategy asks for, as view.<name> or view.get(name, **settings).

    shape: its axes, such as "(T, N, C)", N the images of the pool. how: how a user gives it, for messages.
    model: how the task model of a loop gives it: a function (task model, **settings) -> tensor, or True: its method of
    that name; False if it does not. settings: numbers that it depends on, options of all strategies that need it.
    lacks: (task, several) -> what it needs and this task has not, or ""; several: images may have several labels.
    """

    name: str
    shape: str
    how: str
    model: bool | Callable[..., Tensor] = False
    settings: Mapping[str, Setting] = field(default_factory=dict)
    lacks: Callable[[object, bool], str] = lambda task, several: ""

    def __post_init__(self):
        if not (isinstance(self.name, str) and self.name.isidentifier()) or self.name.startswith("_"):
            raise ValueError(f"a source's name must be one that Python takes for a variable, got {self.name!r}")
        if "N" not in self.axes:
            raise ValueError(f"a source's shape must be such as '(N,)' or '(N, C)', got {self.shape!r}")

    @property
    def axes(self) -> list[str]:
        """The letters of the shape."""
        return [axis for axis in str(self.shape) if axis.isalpha()]

    def check(self, task, several: bool, owner: str) -> None:
        """LalibError if the task lacks what the owner of the source needs."""
        if lacking := self.lacks(task, several):
            raise LalibError(f"{owner} needs {lacking}")

    def settled(self, settings: Mapping) -> dict:
        """All settings, those given checked, the others at their defaults."""
        check_known(self.name, settings, self.settings)
        checked = {name: self.settings[name].checked(name, value) for name, value in settings.items()}
        return {name: setting.default for name, setting in self.settings.items()} | checked

    def value(self, given: object, size: int, settings: Mapping) -> Tensor:
        """What is given, an array or a function of settings that computes it, as a finite tensor; size: N.

        Raises LalibError for None, ValueError for another shape, for NaN and infinity, and for a setting that differs
        from its default where what is given cannot follow it.
        """
        if given is None:
            raise LalibError(f"this strategy needs {self.name} {self.shape}, which was not given: pass {self.how}")
        known = inspect.signature(given).parameters if callable(given) else {}
        every = any(p.kind is p.VAR_KEYWORD for p in known.values())
        taken = {name: value for name, value in settings.items() if every or name in known}
        for name in settings.keys() - taken.keys():
            if settings[name] != self.settings[name].default:
                raise ValueError(f"{name}={settings[name]} changes nothing where {self.name} is given: leave it out")
        value = as_tensor(given(**taken) if callable(given) else given, self.name)
        value = check_codes(value) if self.name == "codes" else value
        if value.ndim != len(self.axes) or value.shape[self.axes.index("N")] != size:
            raise ValueError(f"{self.name} must have shape {self.shape} with N = {size}, got {tuple(value.shape)}")
        if not within(value, LARGEST):
            raise ValueError(f"{self.name} must be finite, got NaN, infinity or numbers beyond {LARGEST:g}")
        if value.dtype in (torch.float16, torch.bfloat16):
            return value.float()
        return value if value.is_floating_point() else value.double()


def _alone(task, several):
    return f"a task that learns from labelled images alone, got {task.model!r}" if task.partly_labelled else ""


def _varies(task, several):
    return f"a task that another seed changes, got {task.model!r}" if task.model == "poisson" else ""


def _ranks_losses(task, several):
    if task.partly_labelled or not task.on_pixels:
        return f"the task 'cnn' or 'resnet18', got {task.model!r}"
    return "one label per image; these images may have several" if several else ""


def _on_codes(task, several):
    return f"a task on codes, such as 'mlp', got {task.model!r}" if task.on_pixels else ""


def _discriminates(task, several):
    return "" if task.model == "m2-vaal" else f"the task 'm2-vaal', whose model it asks, got {task.model!r}"


_PASSES, _LOSSES = {"passes": Setting(PASSES, low=2)}, {"loss_weight": Setting(LOSS_WEIGHT)}
_LOOKS = {"passes": Setting(LOOKS, low=1)}
_VAE = {"vae_epochs": Setting(VAE_EPOCHS, low=1), "adversarial": Setting(ADVERSARIAL)}
_DECLARED = (
    Source("codes", "(N, L)", "codes=z"),
    Source("errors", "(N,)", "errors=la.reconstruction_errors(model, images), or to compare an autoencoder as encoder"),
    Source("probs", "(N, C)", "the task model's class probabilities, probs=p", True),
    Source("mc_probs", "(T, N, C)", "class probabilities of T stochastic passes, mc_probs=p", True, _PASSES, _varies),
    Source("dropped_probs", "(T, N, C)", "the same with codes dropped out, dropped_probs=p", True, _LOOKS, _on_codes),
    Source("features", "(N, F)", "the task model's last features, features=h", True),
    Source("latents", "(N, K)", "the task model's latent codes, latents=z", True),
    Source("predicted_losses", "(N,)", "losses that a task model expects, predicted_losses=r", True, _LOSSES, _alone),
    Source("predicted_losses_with_codes", "(N,)", "the same from a head that sees the codes", True, _LOSSES, _alone),
    Source("vaal", "(N,)", "logits of a discriminator on a VAE's codes, as compare does", True, _VAE),
    Source("ta_vaal", "(N,)", "the same on codes and expected losses", True, _VAE | _LOSSES, _ranks_losses),
    Source("m2_vaal", "(N,)", "the same on the code of M2: choose the task 'm2-vaal'", True, {}, _discriminates),
)
SOURCES: dict[str, Source] = {source.name: source for source in _DECLARED}
