"""Mode capture on stacked digits: three handwritten digits as the channels of a picture; torch, late scikit-learn."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.errors import ConfigInvalid, DataInvalid, RuntimeMissing
from assetgen.models.layers import LEAK
from assetgen.training.experiments.recipes import Recipe, discriminator_loss
from assetgen.training.losses import LOSSES

EDGE_PX = 8
CHANNELS = 3
MODES = 10**CHANNELS
# A digit counts as clear where the classifier gives it at least this probability.
CLEAR = 0.9

RECIPES = {
    "ns_logistic": Recipe("ns_logistic"),
    "ns_logistic_pack2": Recipe("ns_logistic", pack=2),
    "ns_logistic_r1_deviation": Recipe("ns_logistic", r1=1.0, group=4),
    "relativistic_r1_r2": Recipe("relativistic", r1=1.0, r2=1.0),
}


@dataclass(frozen=True)
class Digits:
    """Single digits: pictures ``[n, 8, 8]`` in [-1, 1] and labels ``[n]``, 0 to 9, every one of them present."""

    pictures: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.pictures.shape != (len(self.labels), EDGE_PX, EDGE_PX):
            raise DataInvalid(f"digits of shape {list(self.pictures.shape)} are not allowed; use [n, 8, 8]")
        if sorted(set(self.labels.tolist())) != list(range(10)):
            raise DataInvalid("not all of the digits 0 to 9 are present", hint="give pictures of every digit")

    def stacks(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw ``[count, 3, 8, 8]``, each channel a digit of its own."""
        return self.pictures[torch.randint(len(self.pictures), (count, CHANNELS), generator=rng)]

    def shares(self) -> Tensor:
        """Probability of each of the 1000 modes, in the order of the number that the channels spell."""
        single = torch.bincount(self.labels, minlength=10).double() / len(self.labels)
        return torch.einsum("a,b,c->abc", single, single, single).flatten()


@dataclass(frozen=True)
class Settings:
    """What all recipes of a comparison share; Adam as in DCGAN but for the rate, which falls to 0 along a cosine.

    Attributes:
        steps: of both networks.
        batch: pictures a step, a multiple of 8.
        samples: that a generator is judged by; 26 000 in both papers.
        ema_share: half-life of the averaged generator as a share of the steps so far.
    """

    steps: int = 1500
    batch: int = 64
    latent: int = 64
    width: int = 24
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.99)
    ema_share: float = 0.02
    samples: int = 26_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.samples < 1 or self.seed < 0:
            raise ConfigInvalid(f"steps {self.steps}, samples {self.samples}, seed {self.seed}: use 1, 1, 0 or more")
        if self.batch < 8 or self.batch % 8:
            raise ConfigInvalid(f"batch {self.batch} is not allowed; use a multiple of 8")


@dataclass(frozen=True)
class Coverage:
    """What samples cover.

    Attributes:
        modes: of 1000, found in at least one sample.
        divergence: Kullback-Leibler divergence, in nats, of their shares from the data's.
        clear: share of channels whose digit the classifier gives a probability of 0.9 at least.
    """

    modes: int
    divergence: float
    clear: float


def load() -> Digits:
    """The 1797 digits that come with scikit-learn, 8 x 8 px with 17 grey levels (Alpaydin and Kaynak 1998).

    Raises:
        RuntimeMissing: without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise RuntimeMissing("the digits need scikit-learn", hint="pip install scikit-learn") from error
    bunch = load_digits()
    return Digits(torch.from_numpy(bunch.images).float() / 8 - 1, torch.from_numpy(bunch.target).long())


class Generator(nn.Sequential):
    """Noise ``[n, latent]`` to pictures ``[n, 3, 8, 8]`` in (-1, 1), after DCGAN (Radford et al. 2016)."""

    def __init__(self, latent: int, width: int) -> None:
        super().__init__(
            nn.Linear(latent, 4 * width * 4, bias=False),
            nn.Unflatten(1, (4 * width, 2, 2)),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, CHANNELS, 3, padding=1),
            nn.Tanh(),
        )


class Discriminator(nn.Module):
    """Packs ``[n, 3 pack, 8, 8]`` to logits ``[n]``.

    Differs from DCGAN: no normalisation, which penalties per picture do not go with.
    """

    def __init__(self, width: int, pack: int, group: int) -> None:
        super().__init__()
        self.group = group
        self.first = nn.Sequential(
            nn.Conv2d(CHANNELS * pack, width, 3, padding=1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(LEAK),
        )
        self.last = nn.Sequential(
            nn.Conv2d(2 * width + bool(group), 4 * width, 4, 2, 1),
            nn.LeakyReLU(LEAK),
            nn.Flatten(),
            nn.Linear(4 * width * 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.group:
            x = torch.cat([x, _deviation(x, self.group)], dim=1)
        logits: Tensor = self.last(x)[:, 0]
        return logits


def _deviation(x: Tensor, group: int) -> Tensor:
    """Mean deviation over groups of neighbours, as one constant channel (Karras et al. 2018)."""
    n, _, h, w = x.shape
    groups = x.reshape(n // group, group, *x.shape[1:])
    deviation = (groups.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return deviation.repeat_interleave(group)[:, None, None, None].expand(n, 1, h, w)


def train(digits: Digits, recipe: Recipe, settings: Settings, notify: Callable[[str], None] | None = None) -> Tensor:
    """Train a pair of networks and draw ``[samples, 3, 8, 8]`` from the averaged generator."""
    rng = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # what layers start from has no generator of its own
        generator = Generator(settings.latent, settings.width)
        discriminator = Discriminator(settings.width, recipe.pack, recipe.group)
    average = copy.deepcopy(generator).requires_grad_(False).eval()
    loss = LOSSES[recipe.loss]
    of_generator, of_discriminator = (
        torch.optim.Adam(network.parameters(), lr=settings.lr, betas=settings.betas, fused=True)
        for network in (generator, discriminator)
    )

    def noise(count: int) -> Tensor:
        return torch.randn(count, settings.latent, generator=rng)

    def packs(pictures: Tensor) -> Tensor:
        return pictures.reshape(-1, CHANNELS * recipe.pack, EDGE_PX, EDGE_PX)

    for step in range(settings.steps):
        rate = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        of_generator.param_groups[0]["lr"] = of_discriminator.param_groups[0]["lr"] = rate
        reals = packs(digits.stacks(settings.batch, rng))
        fakes = packs(generator(noise(settings.batch)))
        of_discriminator.zero_grad()
        share = torch.rand(len(reals), generator=rng)
        of_reals = discriminator_loss(recipe, discriminator, reals, fakes, share)
        of_reals.backward()  # type: ignore[no-untyped-call]
        of_discriminator.step()

        discriminator.requires_grad_(False)
        real = discriminator(reals) if loss.paired else fakes.new_zeros(0)
        of_generator.zero_grad()
        of_fakes = loss.generator(real, discriminator(fakes))
        of_fakes.backward()  # type: ignore[no-untyped-call]
        discriminator.requires_grad_(True)
        of_generator.step()
        _average(average, generator, 0.5 ** (1 / max(settings.ema_share * step, 1e-8)))
        if notify and (step + 1) % max(1, settings.steps // 10) == 0:
            notify(f"step {step + 1} of {settings.steps}")
    with torch.no_grad():
        return torch.cat([average(noise(count)) for count in _parts(settings.samples)])


def _parts(count: int, most: int = 1000) -> list[int]:
    return [most] * (count // most) + [count % most] * (count % most > 0)


def _average(average: nn.Module, network: nn.Module, keep: float) -> None:
    for mean, now in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(now.detach(), 1 - keep)
    for kept, new in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(new)


class Classifier(nn.Sequential):
    """Single digits ``[n, 1, 8, 8]`` to logits ``[n, 10]``."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(2 * width * 16, 10),
        )


def train_classifier(digits: Digits, seed: int, epochs: int = 20) -> tuple[Classifier, float]:
    """A classifier trained on three quarters of the digits, and its accuracy on the rest."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(digits.labels), generator=rng)
    held, seen = order[: len(order) // 4], order[len(order) // 4 :]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout too draws from the global generator
        classifier = Classifier()
        optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3)
        for _ in range(epochs):
            for chosen in torch.split(seen[torch.randperm(len(seen), generator=rng)], 64):
                optimizer.zero_grad()
                error = F.cross_entropy(classifier(digits.pictures[chosen, None]), digits.labels[chosen])
                error.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    classifier.eval()
    with torch.no_grad():
        right = classifier(digits.pictures[held, None]).argmax(dim=1) == digits.labels[held]
    return classifier, float(right.double().mean())


def coverage(stacks: Tensor, classifier: Callable[[Tensor], Tensor], expected: Tensor) -> Coverage:
    """Count the modes of ``[n, 3, 8, 8]`` stacks; ``expected [1000]`` are the data's shares."""
    with torch.no_grad():
        logits = torch.cat([classifier(part) for part in torch.split(stacks.reshape(-1, 1, EDGE_PX, EDGE_PX), 4096)])
    probability, digit = logits.softmax(dim=1).max(dim=1)
    mode = digit.reshape(-1, CHANNELS) @ torch.tensor([100, 10, 1])
    shares = torch.bincount(mode, minlength=MODES).double() / len(stacks)
    found = shares > 0
    divergence = float((shares[found] * (shares[found] / expected[found]).log()).sum())
    return Coverage(int(found.sum()), max(0.0, divergence), float((probability >= CLEAR).double().mean()))
