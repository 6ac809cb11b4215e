"""When a position of a recurrence stops, as frozen values (Graves 2016; Dehghani et al. 2018, section 2.2 and appendix C)."""

from __future__ import annotations

from dataclasses import dataclass

from qkv.error import QkvError


@dataclass(frozen=True)
class AllSteps:
    """Every position makes every step."""


@dataclass(frozen=True)
class Interpolated:
    """What comes out of a position is w s + (1 - w) y at each of its steps, from y = 0: the listing of Dehghani et al. 2018,
    appendix C. An earlier step fades with every later one, so that the weights do not add up to 1."""


@dataclass(frozen=True)
class Mean:
    """What comes out of a position is the sum of w s over its steps: the mean of Graves 2016, equation 13."""


@dataclass(frozen=True)
class GoesOn:
    """Others see a position that has halted as if it had not: its state changes at every step, as in the listing."""


@dataclass(frozen=True)
class Stays:
    """Others see a position that has halted as it was at its last step, as the text of the paper has it: its state, its keys and
    values are those of that step at every later one. What is seen no longer depends on work that a halted position would do."""


@dataclass(frozen=True)
class Probability:
    """A position that is still running at the last step of all keeps its probability there as the weight of that step, as in the
    listing."""


@dataclass(frozen=True)
class Remainder:
    """A position that is still running at the last step of all halts there, and the weight of that step is what is left to 1, as
    wherever it halts: the weights of a `Mean` then always add up to 1, as those of Graves 2016 do.

    Where probabilities are small, a position then begins as one that makes all steps, whose last state comes out; and the cost
    of pondering reaches positions that never halted, since their remainder has a gradient.
    """


@dataclass(frozen=True)
class Itself:
    """The unit for halting reads a state as it is, as in the listing. Adam moves every weight by the learning rate however small
    its gradient, so that what is said of a wide or a long state can go from one end to the other within ten steps of training:
    the cost of pondering then stops every position before it is known what later steps are good for."""


@dataclass(frozen=True)
class Direction:
    """The unit for halting reads the direction of a state, x / |x|. Where norms take away the length anyway it can tell as much
    from that, and it learns at a pace that does not depend on how long states are, and little on how wide."""


@dataclass(frozen=True)
class Halt:
    """Every position stops by itself: at the step at which its halting probabilities come to add up to more than `threshold`.

    At each step a position says with what probability p it halts; p is the weight w of that step, and of the last one the
    remainder to 1; `last` says what it is for one that is still running at the last step of all. The loss grows by `cost` times
    the mean over all positions of (steps + remainder). `bias` is the offset of p's map before training: the released code has +1,
    with which a position begins by halting at its second step and hardly ever learns to go further; `reads` is what the map
    reads.
    """

    threshold: float = 0.99
    output: Interpolated | Mean = Interpolated()
    halted: GoesOn | Stays = GoesOn()
    cost: float = 0.01
    bias: float = -1.0
    last: Probability | Remainder = Probability()
    reads: Itself | Direction = Direction()

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise QkvError(f"Halt.threshold lies between 0 and 1, such as 0.99, not {self.threshold!r}")
        if not self.cost >= 0:
            raise QkvError(f"Halt.cost is not negative: {self.cost!r}")


Halting = AllSteps | Halt
