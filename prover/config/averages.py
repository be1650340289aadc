"""How checkpoints are averaged."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from prover.config.problems import ProblemsConfig
from prover.config.section import Section
from prover.config_faults import DEFAULT_METHOD


class SweptAverage(Section):
    """An average whose weight may be chosen anew in each round, on problems that nothing is reported on."""

    sweep: tuple[float, ...] = ()
    """Values of ``tuned_weight`` that each round tries, to go on with the best; without any, just ``tuned_weight``."""
    validate_on: ProblemsConfig | None = None
    """The problems that the best is chosen on, none of which may be in ``evaluate_on``."""

    @model_validator(mode="after")
    def _can_be_swept(self) -> Self:
        if bool(self.sweep) != (self.validate_on is not None):
            raise ValueError("sweep and validate_on need each other: weights, and a problem set to choose among them")
        if len({f"{weight:g}" for weight in self.sweep}) < len(self.sweep):
            raise ValueError(f"sweep holds a weight twice: {', '.join(f'{weight:g}' for weight in self.sweep)}")
        for weight in self.sweep:
            try:
                self.at(weight)
            except ValidationError as error:
                raise ValueError(f"sweep: {weight:g}: {error.errors()[0]['msg']}") from error
        return self

    @property
    def method_alone(self) -> dict[str, Any]:
        """What decides an average, as JSON has it: not how its weight was found."""
        return self.model_dump(mode="json", exclude={"sweep", "validate_on"})

    def at(self, weight: float) -> Self:
        """The same method with this ``tuned_weight``. Raises ValidationError where it does not take it."""
        return type(self).model_validate({**self.method_alone, "tuned_weight": weight})


class LinearAverage(SweptAverage):
    """The weighted mean of checkpoints."""

    method: Literal["linear"] = "linear"
    """A weighted mean; what ``method`` is where it is left out."""
    tuned_weight: float = Field(default=0.7, gt=0, le=1)
    """Weight of the tuned checkpoint; the checkpoint that it was tuned from, the base, has the rest."""


class TaskVectorAverage(SweptAverage):
    """The base plus what of the tuned checkpoints' changes a method keeps."""

    tuned_weight: float = Field(default=1.0, gt=0)
    """Factor of the kept changes; the papers' lambda or alpha."""


class TiesAverage(TaskVectorAverage):
    """The largest changes of each tensor, those of the elected sign averaged (arXiv 2306.01708)."""

    method: Literal["ties"]
    """Trim, elect signs, merge."""
    density: float = Field(default=0.2, gt=0, le=1)
    """Share of each tensor's changes that stays, the largest; equal magnitudes stay together."""


class DareAverage(TaskVectorAverage):
    """Random changes, scaled up so that their expected sum is unchanged (arXiv 2311.03099)."""

    method: Literal["dare"]
    """Drop and rescale."""
    drop: float = Field(default=0.9, ge=0, lt=1)
    """Share of changes that is dropped."""


class BreadcrumbsAverage(TaskVectorAverage):
    """Changes that are neither among the smallest nor among the largest of their tensor (arXiv 2312.06795)."""

    method: Literal["breadcrumbs"]
    """Drop both tails."""
    drop_smallest: float = Field(default=0.85, ge=0, lt=1)
    """Share of each tensor's changes that is dropped from below."""
    drop_largest: float = Field(default=0.01, ge=0, lt=1)
    """Share dropped from above."""

    @model_validator(mode="after")
    def _some_stay(self) -> "BreadcrumbsAverage":
        if self.drop_smallest + self.drop_largest >= 1:
            raise ValueError("drop_smallest and drop_largest must leave something: their sum must be below 1")
        return self


TaskVectors = TiesAverage | DareAverage | BreadcrumbsAverage


def _method(value: Any) -> str:
    """``method`` may be left out: it is linear then."""
    return str(value.get("method", DEFAULT_METHOD) if isinstance(value, dict) else getattr(value, "method", None))  # type: ignore[reportUnknownMemberType]


AverageConfig = Annotated[
    Annotated[LinearAverage, Tag("linear")]
    | Annotated[TiesAverage, Tag("ties")]
    | Annotated[DareAverage, Tag("dare")]
    | Annotated[BreadcrumbsAverage, Tag("breadcrumbs")],
    Discriminator(
        _method,
        custom_error_type="average_method",
        custom_error_message="method: Input should be 'linear', 'ties', 'dare' or 'breadcrumbs'",
    ),
]
