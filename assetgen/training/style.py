"""What one step of training style transfer between two domains does; needs torch.

generators       cyclegan: there and back, leave what is of the target as it is (Zhu et al. 2017)
                 cut, fastcut: what a place shows can be told from the result (Park et al. 2020)
                 patches: neither; patches, structure and colours alone (style_terms.py), which the others may add
discriminators   reals and fakes without their borders; cyclegan: earlier fakes as well
averages         move the averaged generators
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.errors import ConfigInvalid
from assetgen.models.cyclegan import CycleganGenerator, PatchDiscriminator, TransferConfig
from assetgen.models.parts import standing_statistics
from assetgen.models.patches import PatchHeads, cut_border, nce_distance
from assetgen.training import checkpoint, distil, parallel
from assetgen.training.adversarial import Adversary, Shown, sanitise
from assetgen.training.batches import Reals
from assetgen.training.checkpoint import Checkpoint, Progress
from assetgen.training.loop import adam, learning_rate, move_average, set_learning_rate
from assetgen.training.precision import autocast
from assetgen.training.recipe import recipe_from_values
from assetgen.training.style_batches import dither, domain_batch
from assetgen.training.style_look import SHOWN, figures, looked_at, write_rows
from assetgen.training.style_recipe import StyleRecipe
from assetgen.training.style_terms import beside, seen
from assetgen.training.sums import Sums

STANDING_BATCHES = 16
MORE = 2  # times the batch that fakes' patches are compared with
# The least squares of losses.py are halved on both sides, those of the papers on the discriminator's only.
GENERATOR_SHARES = {"least_squares": 2.0}


def generator_config(recipe: StyleRecipe) -> TransferConfig:
    """The generator that a recipe of two domains asks for."""
    return TransferConfig(width=recipe.width, blocks=recipe.blocks, wrap=recipe.wrap, norm=recipe.norm)


class Pool(nn.Module):
    """Earlier fakes, kept with the networks (Shrivastava et al. 2017), so that a resumed run has the same."""

    pictures: Tensor
    count: Tensor

    def __init__(self, size: int, edge_px: int) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(size, 3, edge_px, edge_px))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def exchange(self, fakes: Tensor, rng: torch.Generator) -> Tensor:
        """Hand back fakes ``[n, 3, edge, edge]``, half of them taken from the pool once it is full, in exchange.

        Args:
            rng: on the CPU; two draws of n numbers are taken.
        """
        size = len(self.pictures)
        swap = torch.rand(len(fakes), generator=rng) < 0.5
        places = torch.randint(max(size, 1), (len(fakes),), generator=rng).tolist()
        given = fakes.clone()
        for n, place in enumerate(places):
            if int(self.count) < size:
                self.pictures[int(self.count)] = fakes[n]
                self.count += 1
            elif size and swap[n]:
                given[n] = self.pictures[place]
                self.pictures[place] = fakes[n]
        return given


class _Alone(nn.Module):
    """A generator that takes no class, in the form of those that do."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor, _class_weights: Tensor) -> Tensor:
        made: Tensor = self.generator(x)
        return made


@dataclass
class Way:
    """From one domain to another: a generator, and a discriminator of where it leads.

    Attributes:
        prefix: of the names of its networks: "" there, "back_" for the way back.
        source, target: numbers of the domains.
        teacher: whose pictures it learns to make as well, if it has one.
    """

    prefix: str
    source: int
    target: int
    generator: CycleganGenerator
    average: nn.Module
    discriminator: PatchDiscriminator
    pool: Pool
    adversary: Adversary
    teacher: nn.Module | None = None


class StyleTask:
    """One or two generators between two domains, their averages and discriminators; the same for the same recipe."""

    def __init__(
        self,
        recipe: StyleRecipe,
        reals: Reals,
        facts: Mapping[str, Any],
        device: str = "cpu",
        held_out: Reals | None = None,
    ) -> None:
        if recipe.method == "stargan":
            raise ConfigInvalid("method: stargan is trained by star.StarTask")
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.share = parallel.share(recipe)
        self.reals = reals
        self.held_out = held_out
        self.facts = facts
        self.device = device
        self.modules: dict[str, nn.Module] = {}
        self.optimisers: dict[str, torch.optim.Adam] = {}
        self.ways = [self._way("", 0, 1)]
        self.heads: PatchHeads | None = None
        if recipe.method == "cyclegan":
            self.ways.append(self._way("back_", 1, 0))
        if recipe.nce:
            self.heads = PatchHeads(generator_config(recipe)).to(device)
            self.modules["heads"] = self.heads
            self.optimisers["heads_adam"] = adam(self.heads, recipe.learning_rate, betas=(recipe.beta1, recipe.beta2))

    def learn_from(self, saved: Checkpoint) -> None:
        """Have a teacher of the same method; see ``distil``."""
        recipe = recipe_from_values(StyleRecipe, saved.recipe)
        if recipe.method != self.recipe.method:
            raise ConfigInvalid(f"method: the teacher was trained with {recipe.method}, not {self.recipe.method}")
        for way in self.ways:
            teacher = CycleganGenerator(generator_config(recipe)).to(self.device)
            checkpoint.restore_module(teacher, saved, f"{way.prefix}average")
            way.teacher = teacher.eval().requires_grad_(False)

    def step(self, progress: Progress, done: float, sums: Sums) -> Progress:
        """Train the generators, then the discriminators on what those made."""
        recipe = self.recipe
        share = learning_rate(recipe, done) / recipe.learning_rate * progress.rate_scale
        for name, optimiser in self.optimisers.items():
            discriminates = name.endswith("discriminator_adam")
            set_learning_rate(optimiser, share * (recipe.discriminator_rate if discriminates else recipe.learning_rate))
        rng = torch.Generator().manual_seed(self.share.seed * 1_000_003 + progress.step)
        crops = [domain_batch(self.reals, label, self.share, progress.step).to(self.device) for label in range(2)]
        fakes = self._generator_step(crops, progress.step, rng, sums)
        for way, made in zip(self.ways, fakes, strict=True):
            reals, earlier = self._inner(crops[way.target]), way.pool.exchange(self._inner(made), rng)
            shown = _shown(seen(recipe, reals), seen(recipe, earlier))
            way.adversary.learn(shown, progress.step, progress.penalty_scale, rng, sums)
            move_average(way.average, way.generator, recipe, progress.pictures)
        return replace(progress, step=progress.step + 1, pictures=progress.pictures + recipe.batch)

    def monitor(self) -> dict[str, float]:
        """Figures of the averaged generators, by the domain that they lead to; see ``style_look.figures``.

        ``cycle_error.DOMAIN``: mean error of a value in [-1, 1] after the way from that domain and back.
        """
        self._settle()
        found: dict[str, float] = {}
        for way in self.ways:
            before = self._looked_at(way.source)
            after = self._made(way, before)
            wanted, inner = self._looked_at(way.target), self._inner
            found |= figures(inner(before), inner(after), inner(wanted), self.reals.classes[way.target])
            for back in self.ways:
                if back is not way:
                    error = F.l1_loss(inner(self._made(back, after)), inner(before))
                    found[f"cycle_error.{self.reals.classes[way.source]}"] = round(float(error), 4)
        return found

    def snapshot(self, path: Path) -> None:
        """Measure the statistics of the averaged generators anew, and draw a row a picture: before, after, and back."""
        self._settle()
        titles, columns = [], []
        for way in self.ways:
            pictures = [self._looked_at(way.source)]
            titles += [self.reals.classes[way.source], f"to {self.reals.classes[way.target]}"]
            pictures.append(self._made(way, pictures[-1]))
            for back in self.ways:
                if back is not way:
                    titles.append("and back")
                    pictures.append(self._made(back, pictures[-1]))
            columns += pictures
        if len(self.ways) == 1:  # with two both domains are there already
            titles.append(f"real {self.reals.classes[1]}")
            columns.append(self._looked_at(1))
        write_rows(path, titles, columns)

    def _way(self, prefix: str, source: int, target: int) -> Way:
        """New networks and optimisers, put among those that checkpoints keep."""
        recipe, betas = self.recipe, (self.recipe.beta1, self.recipe.beta2)
        generator = CycleganGenerator(generator_config(recipe))
        discriminator = PatchDiscriminator(
            width=recipe.discriminator_width,
            halvings=recipe.discriminator_halvings,
            norm=recipe.discriminator_norm,
        )
        for module in (generator, discriminator):
            module.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = copy.deepcopy(generator).eval().requires_grad_(False)
        pool = Pool(recipe.pool, recipe.inner_px).to(self.device)
        self.modules |= {
            f"{prefix}generator": generator,
            f"{prefix}average": average,
            f"{prefix}discriminator": discriminator,
        }
        if recipe.pool:
            self.modules[f"{prefix}pool"] = pool
        rate = recipe.discriminator_rate
        optimiser = self.optimisers[f"{prefix}discriminator_adam"] = adam(discriminator, rate, betas=betas)
        self.optimisers[f"{prefix}generator_adam"] = adam(generator, recipe.learning_rate, betas=betas)

        def judge(pictures: Tensor, _labels: Tensor) -> tuple[Tensor, None]:
            with autocast(recipe, self.device):
                return discriminator(pictures).float().flatten(1), None

        def judge_exactly(pictures: Tensor, _labels: Tensor) -> tuple[Tensor, None]:
            return discriminator(pictures).mean(dim=(1, 2, 3)), None  # a penalty is one of pictures, not of patches

        adversary = Adversary(
            module=discriminator, optimiser=optimiser, objective=recipe, judge=judge, judge_exactly=judge_exactly
        )
        return Way(prefix, source, target, generator, average, discriminator, pool, adversary)

    def _generator_step(self, crops: list[Tensor], step: int, rng: torch.Generator, sums: Sums) -> list[Tensor]:
        """Returns what each way has made of the crops of its source, without gradients."""
        for way in self.ways:
            way.discriminator.requires_grad_(False)
        # FastCUT: half of the time the input is flipped, and the result must be so.
        flipped = bool(torch.rand((), generator=rng) < 0.5) and self.recipe.method == "fastcut"
        fed = [crops[way.source].flip(3) if flipped else crops[way.source] for way in self.ways]
        fakes = [self._paint(way, x, rng) for way, x in zip(self.ways, fed, strict=True)]
        loss = torch.zeros((), device=self.device)
        for way, x, made in zip(self.ways, fed, fakes, strict=True):
            verdict = way.adversary.verdict(*_unlabelled(seen(self.recipe, self._inner(made))), None, sums)
            loss = loss + GENERATOR_SHARES.get(self.recipe.loss, 1.0) * verdict
            loss = loss + beside(self.recipe, self._inner(x), self._inner(made), self._more(way, step), rng, sums)
            if way.teacher is not None:
                with torch.no_grad():
                    wanted = self._inner(way.teacher(x).float())
                distance = distil.distance(self._inner(made), wanted)
                sums.add("distance", distance)
                loss = loss + self.recipe.distil * distance
        if self.recipe.cycle:
            loss = loss + self._cycled(crops, fakes, rng, sums)
        if self.heads is not None:
            loss = loss + self._matched(crops, fakes, rng, flipped, sums)
        optimisers = [optimiser for name, optimiser in self.optimisers.items() if "discriminator" not in name]
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for way in self.ways:
            sanitise(way.generator, "g", sums)
        if self.heads is not None:
            sanitise(self.heads, "heads", sums)
        for optimiser in optimisers:
            optimiser.step()
        for way in self.ways:
            way.discriminator.requires_grad_(True)
        return [made.detach() for made in fakes]

    def _more(self, way: Way, step: int) -> Tensor | None:
        """More pictures of a way's target than the discriminator sees: a few tell little of how patches are spread."""
        if not self.recipe.compares_spread:
            return None
        return self._inner(domain_batch(self.reals, way.target, self.share, step, times=MORE).to(self.device))

    def _cycled(self, crops: list[Tensor], fakes: list[Tensor], rng: torch.Generator, sums: Sums) -> Tensor:
        """There and back must be where it was; what is of the target stays as it is."""
        recipe, total = self.recipe, torch.zeros((), device=self.device)
        for way, back, made in zip(self.ways, reversed(self.ways), fakes, strict=True):
            cycle = F.l1_loss(self._inner(self._paint(back, made, rng)), self._inner(crops[way.source]))
            sums.add("cycle", cycle)
            total = total + recipe.cycle * cycle
            if recipe.identity:
                wanted = crops[way.target]
                identity = F.l1_loss(self._inner(self._paint(way, wanted, rng)), self._inner(wanted))
                sums.add("identity", identity)
                total = total + recipe.cycle * recipe.identity * identity
        return total

    def _matched(
        self, crops: list[Tensor], fakes: list[Tensor], rng: torch.Generator, flipped: bool, sums: Sums
    ) -> Tensor:
        """What a place shows can be told from what was made of it; with ``identity`` for pictures of the target too.

        The mean of both, as the paper's code has it.
        """
        recipe, (way,) = self.recipe, self.ways
        nce = self._nce(way, crops[way.source], fakes[0], rng, flipped)
        sums.add("nce", nce)
        if not recipe.identity:
            return recipe.nce * nce
        wanted = crops[way.target]
        identity = self._nce(way, wanted, self._paint(way, wanted, rng), rng, False)
        sums.add("identity", identity)
        return recipe.nce * (nce + recipe.identity * identity) / (1 + recipe.identity)

    def _nce(self, way: Way, before: Tensor, after: Tensor, rng: torch.Generator, flipped: bool) -> Tensor:
        assert self.heads is not None  # noqa: S101 -- for mypy
        before, after, border_px = dither(before, rng), dither(after, rng), self.recipe.border_px
        with autocast(self.recipe, self.device):
            return nce_distance(way.generator, self.heads, before, after, rng, border_px=border_px, flipped=flipped)

    def _paint(self, way: Way, x: Tensor, rng: torch.Generator) -> Tensor:
        with autocast(self.recipe, self.device):
            made: Tensor = way.generator(dither(x, rng))
        return made.float()

    def _made(self, way: Way, x: Tensor) -> Tensor:
        with torch.no_grad():
            made: Tensor = way.average(x)
        return made

    def _inner(self, x: Tensor) -> Tensor:
        return cut_border(x, self.recipe.border_px)

    def _looked_at(self, label: int, count: int = SHOWN) -> Tensor:
        return looked_at(self.reals, self.held_out, label, self.recipe.crop_px, count).to(self.device)

    def _settle(self) -> None:
        """Statistics of batch norms belong to weights; those of the averaged networks are their own."""
        if self.recipe.norm != "batch":
            return
        for way in self.ways:
            batches = [
                domain_batch(self.reals, way.source, self.share, step).to(self.device)
                for step in range(STANDING_BATCHES)
            ]
            standing_statistics(_Alone(way.average).eval(), [(batch, batch[:, 0, 0]) for batch in batches])


def _unlabelled(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return pictures, torch.zeros(len(pictures), dtype=torch.int64, device=pictures.device)


def _shown(reals: Tensor, fakes: Tensor) -> Shown:
    return Shown(*_unlabelled(reals), *_unlabelled(fakes))
