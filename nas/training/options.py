"""What a training run depends on, besides its space and data."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from nas.errors import UserError
from nas.supernet import ENTANGLEMENTS

WITHOUT_INFLUENCE = ("num_epochs", "num_workers", "checkpoint_steps", "num_watched", "tracker")
"""Options that may change between a run and its continuation."""

OF_SEVERAL_NETWORKS = (
    *("num_random", "size_bias", "random_share_pct", "students_from_pct", "divergence", "soft_targets"),
    *("teacher", "teacher_weight", "teacher_features", "entanglement"),
)
"""Options that plain training of one network doesn't read."""

CHOICES = {
    "entanglement": ENTANGLEMENTS,
    "mixed_precision": ("no", "bf16"),
    "tracker": ("", "tensorboard", "mlflow"),
    "divergence": ("kl", "alpha"),
    "soft_targets": ("largest", "larger"),
}
"""Values of options that are one of a few names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """The recipe. Equal options, space and data give equal weights on one machine with one number of threads."""

    num_epochs: int = 4
    """Passes over the training images."""
    batch_size: int = 64
    """Images of one shard of a step; fewer when the training split holds fewer."""
    num_shards: int = 1
    """Parts of a step, each with images, sub-networks and batch norm of its own; their gradients are averaged.

    Processes share the shards of a step, so that what is trained doesn't depend on how many there are.
    """
    learning_rate: float = 4e-3
    """Highest rate of the cosine schedule, which starts and ends near zero."""
    warmup_pct: float = 10.0
    """Share of all steps over which the rate rises."""
    weight_decay: float = 0.05
    """AdamW's decay of weights; norms and biases have none."""
    scale_rate: float = 1.0
    """Learning rate of norms and biases, as a multiple of that of weights."""
    max_grad_norm: float = 0.0
    """Gradients of a step are scaled down to this norm; 0 leaves them alone."""
    mixed_precision: str = "no"
    """`no`, or `bf16` for passes in bfloat16 where torch's autocast finds it safe."""
    strategy: str = "single-path"
    """Which sub-networks a step trains: a name, or a dotted path `my_package.strategies:MyStrategy`."""
    num_random: int = 1
    """Random sub-networks a step, beside the largest and the smallest."""
    size_bias: float = 0.0
    """How far random sub-networks lean towards large ones, whose weights are in fewer of them: a gene with n values, in
    order of cost, takes place n u^(1 - size_bias) with u uniform. 0 draws all values alike.

    `conflict-free`, `fair` and `progressive-shrinking` draw in ways of their own.
    """
    entanglement: str = "full"
    """Which blocks of a place share weights: all of a kind (`full`), or those that differ in `width` alone: kernels and
    ratios have their own then, which ranks better and needs more epochs."""
    random_share_pct: float = 50.0
    """Share of the batch that each random sub-network sees."""
    students_from_pct: float = 40.0
    """Share of all steps at the start that train the largest network alone, so that there is something to distil."""
    divergence: str = "kl"
    """How far a student's outputs are from its soft targets: `kl`, or `alpha` (AlphaNet, Wang et al. 2021)."""
    soft_targets: str = "largest"
    """Whose outputs a student learns: those of the `largest` network, or of any `larger` one of the step by MACs."""
    teacher: str = ""
    """A trained network to learn from: `timm:<name>`, or `my_package.teachers:make`, which returns a module."""
    teacher_weight: float = 0.5
    """Share of the teacher in what the largest network learns, 0 to 1; the labels have the rest."""
    teacher_features: bool = False
    """Learn the teacher's mean features as well as its outputs."""
    init: str = ""
    """A trained network of the space to start from: a folder made by `nas export`, or `timm:<name>`."""
    ema_decay: float = 0.99
    """Decay a step of the moving average of the weights, which the finished supernet holds; less in the first steps."""
    flip: bool = True
    """Mirror half of the images left to right; turn it off where that changes the class."""
    max_shift: int = 0
    """Images are moved by up to so many pixels, in both directions; it pays off in runs of many epochs."""
    randaugment: int = 0
    """Magnitude of RandAugment, 1 to 30, two operations an image (Cubuk et al. 2020); 0 turns it off."""
    label_smoothing: float = 0.0
    """Probability that is spread over all classes."""
    mixup: float = 0.0
    """Parameter of the beta distribution by which pairs of images are mixed (Zhang et al. 2018); 0 turns it off."""
    cutmix: float = 0.0
    """The same for pasted rectangles (Yun et al. 2019); with mixup as well, each step draws one of them."""
    drop_path: float = 0.0
    """Rate at which the largest network's last block is skipped; smaller networks have less in proportion to depth."""
    num_workers: int = 0
    """Processes that read, decode and augment images; 0 does it between steps, best for small images in memory."""
    checkpoint_steps: int = 150
    """Steps between two checkpoints; a kill loses at most so many."""
    num_watched: int = 1000
    """Validation images on which smallest, middle and largest network are judged after each epoch; 0 for none."""
    tracker: str = ""
    """`tensorboard` or `mlflow`: where accelerate sends loss, rate and accuracy as training goes on."""
    seed: int = 0
    """Of the first weights, the order of images, augmentation and the sampled sub-networks."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "batch_size", "num_shards", "checkpoint_steps", "learning_rate", "scale_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)} is not possible; it must be above 0")
        for name in (
            "num_random", "max_shift", "weight_decay", "max_grad_norm", "mixup", "cutmix", "num_workers", "num_watched",
            "seed",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)} is not possible; it must be 0 or more")
        if self.batch_size < 2:
            raise UserError(f"batch_size={self.batch_size} is not possible; batch norm needs at least 2 images")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay} is not possible; it must be at least 0 and below 1")
        for name in ("label_smoothing", "drop_path", "size_bias"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is not possible; it must be at least 0 and below 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"{name}={getattr(self, name)!r} is not possible; choose one of {list(choices)}")
        if not 0 <= self.teacher_weight <= 1:
            raise UserError(f"teacher_weight={self.teacher_weight} is not possible; it must be 0 to 1")
        if not 0 <= self.randaugment <= 30:
            raise UserError(f"randaugment={self.randaugment} is not possible; it must be 0 to 30")
        if not 0 <= self.warmup_pct < 100:
            raise UserError(f"warmup_pct={self.warmup_pct} is not possible; it must be at least 0 and below 100")
        if not 0 <= self.students_from_pct <= 100:
            raise UserError(f"students_from_pct={self.students_from_pct} is not possible; it must be 0 to 100")
        if not 0 < self.random_share_pct <= 100:
            raise UserError(
                f"random_share_pct={self.random_share_pct} is not possible; it must be above 0, at most 100"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "TrainOptions":
        """UserError when an option is unknown."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise UserError(f"'{unknown[0]}' is not an option of training; there are {', '.join(known)}")
        return cls(**data)

    def differences(self, other: "TrainOptions") -> list[str]:
        """Names of the options that change what is trained, but for the number of epochs, and whose values differ."""
        ours, theirs = self.to_json(), other.to_json()
        return [name for name in ours if name not in WITHOUT_INFLUENCE and ours[name] != theirs[name]]
