"""The kinds of plugin, each a small abstract class.

A plugin class has a ``name`` (its key in a recipe) and a nested pydantic ``Config`` whose field docstrings are
its help. The framework builds it as ``cls(config)``, awaits ``open(context)`` once, on the loop that it will be
used on, and awaits ``close()`` at the end. Plugin authors raise plain exceptions; the framework says whose they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from cort_framework.machine.footprint import Footprint, Work
from cort_framework.types import (
    Checkpoint,
    Generation,
    Group,
    Sampling,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Weights,
)

if TYPE_CHECKING:
    from cort_framework.executor import RolloutJob
    from cort_framework.pipeline import Run
    from cort_framework.recipe.plan import Plan
    from cort_framework.recipe.settings import LaunchSettings
    from cort_framework.runtime import Runtime


class PluginConfig(BaseModel):
    """Base of every ``Config``: unknown keys are refused, and the docstring under a field is its help."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


@dataclass(frozen=True)
class OpenContext:
    """What a plugin is told when it is opened."""

    scratch: Path
    """A folder for temporary files, removed at the end of the run."""
    seed: int = 0
    deterministic: bool = False
    preload: tuple[str, ...] = ()
    """For tools that keep a Python session: modules that the recipe's other tools ask to have imported there."""


class Plugin(ABC):
    """What all kinds share."""

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    """Requirements such as ``"torch>=2.11"``, checked when the plan is made, before anything is started."""

    distribution: str = "this script"
    """The distribution that it came from, filled in by the framework so that a fault can be attributed."""

    class Config(PluginConfig):
        """No settings."""

    def __init__(self, config: Any = None) -> None:
        self.config = self.Config() if config is None else config

    def preflight(self) -> None:  # noqa: B027 - optional, not abstract
        """Raise ``RequestError`` where this machine lacks what the settings ask for. Called for a recipe's tools before
        the first stage, so that nobody finds it out after hours; takes nothing that has to be given back."""

    def footprint(self, work: Work) -> Footprint | None:
        """What it will take for this work: tokens, memory, disk. Stage kinds, trainers and engines are asked when a
        person asks for the plan; ``None``: it does not say. Starts nothing and imports nothing heavy."""
        return None

    async def open(self, context: OpenContext) -> None:  # noqa: B027 - optional, not abstract
        """Take what is needed: processes, connections."""

    async def close(self) -> None:  # noqa: B027 - optional, not abstract
        """Give all of it back. Called once, also after a failure."""


# --- tools ------------------------------------------------------------------------------------------------------
class ToolSession(Protocol):
    """One trajectory's view of a tool; its state lives here."""

    async def call(self, call: ToolCall) -> ToolResult: ...


class Tool(Plugin):
    """Something that a model can call while it thinks.

    ``language`` is the fence that it answers to (```` ```python ````); ``parameters`` is the JSON schema for native
    tool calls. At least one of them is set.

    >>> import contextlib
    >>> class Shout(Tool):
    ...     name = "shout"
    ...     language = "shout"
    ...     @contextlib.asynccontextmanager
    ...     async def session(self, task, *, trajectory_id, seed):
    ...         class Session:
    ...             async def call(self, call):
    ...                 return ToolResult(Outcome.OK, call.code.upper())
    ...         yield Session()
    """

    language: ClassVar[str | None] = None
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other fence names that mean the same: ``py``."""
    description: ClassVar[str] = ""
    parameters: ClassVar[Mapping[str, Any] | None] = None
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules to import into the Python kernel wherever a recipe has both this tool and ``python``."""

    @abstractmethod
    def session(
        self, task: Task, *, trajectory_id: str, seed: int
    ) -> AbstractAsyncContextManager[ToolSession]:
        """One session a trajectory. Start what is expensive at the first call: many trajectories make none.

        A call that fails by the tool's own fault raises ``InfrastructureError`` (or anything else): it is tried again
        in a fresh session and never shown to the model.
        """


# --- hints, filters, rewards ------------------------------------------------------------------------------------
class HintInjector(Plugin):
    """Watches a trajectory as it grows and says where a hint belongs. May be a plain or an async method.

    >>> class Nudge(HintInjector):
    ...     name = "nudge"
    ...     def inject(self, trajectory):
    ...         at = trajectory.response.find("by hand")
    ...         return None if at < 0 else Hint("Use code.\\n", rewind_to=at, reason="works by hand")
    """

    @abstractmethod
    def inject(self, trajectory: Trajectory) -> Any:
        """``Hint`` or ``None``. Called at the start (empty response), every ``check_every`` tokens, and at the end of
        each stretch that the engine generated. Must not look at anything but the trajectory."""


class Filter(Plugin):
    """Says keep or drop, with a reason and the span that shows it. May be plain or async.

    >>> class Short(Filter):
    ...     name = "short"
    ...     def judge(self, trajectory):
    ...         n = trajectory.response_tokens
    ...         return Verdict(n < 500, f"{n} tokens")
    """

    timeout_s: float = 600.0
    """Seconds for one answer; after that the trajectories are dropped, and the filter is named."""
    isolated: ClassVar[bool] = False
    """As a reward's."""
    memory_mb: ClassVar[int] = 4096

    @abstractmethod
    def judge(self, trajectory: Trajectory) -> Any:
        """A ``Verdict``."""

    def judge_group(self, group: Group) -> Any:
        """One verdict a trajectory; by default ``judge`` mapped over the group."""
        return [self.judge(t) for t in group.trajectories]


class RewardFunction(Plugin):
    """Scores a finished trajectory. May be plain (then it runs in a thread) or async.

    >>> class Brief(RewardFunction):
    ...     name = "brief"
    ...     async def score(self, trajectory):
    ...         return 1.0 if trajectory.response_tokens < 200 else 0.0
    """

    timeout_s: float = 60.0
    """Seconds for one trajectory; after that it has no score, and the reward is named."""
    isolated: ClassVar[bool] = False
    """True: it works in processes of its own, each opened with the same config, which are killed where it does not end in
    time or takes too much memory. For code that may hang or grow on what a model writes (computer algebra above all), and
    that is in a module that can be imported. A thread cannot be killed: without this, code that holds on to the
    interpreter ends the run."""
    memory_mb: ClassVar[int] = 4096
    """Where it is isolated: MiB of address space that it may add to what its process begins with."""

    @abstractmethod
    async def score(self, trajectory: Trajectory) -> float | None:
        """A finite number, or ``None`` where the reward does not apply."""


# --- engines ----------------------------------------------------------------------------------------------------
@runtime_checkable
class Tokenizer(Protocol):
    """The little that the core needs of a tokenizer."""

    @property
    def eos_ids(self) -> frozenset[int]: ...

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of the text, nothing added. ``special``: what spells a special token is that token, as in what a model wrote;
        otherwise it is text, so that no output of a tool can end a turn."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, special tokens included, spaces not cleaned up."""

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of the conversation, with the generation prompt."""


class Engine(Plugin):
    """Generates tokens. Many ``generate`` calls are in flight at once; batching them is the engine's affair."""

    tokenizer: Tokenizer
    """There after the first ``load_weights`` of a path."""

    @abstractmethod
    async def load_weights(self, weights: Weights) -> None:
        """Sample from these from now on. Proves itself on a probe prompt; raises ``EngineError`` where it cannot."""

    @abstractmethod
    async def generate(self, ids: Sequence[int], sampling: Sampling) -> Generation:
        """Go on from ``ids`` (prompt and all that came since). Cancelling the call frees its place."""

    def read_tokenizer(self, model: str, download: bool = True) -> Tokenizer | None:
        """The tokenizer that ``load_weights`` of this path brings, without the weights; ``None``: it gives none without.
        ``download = False``: from what is on this machine. Raises ``RequestError`` where it cannot be had."""
        return None

    async def sleep(self) -> None:
        """Give the device's memory back until ``wake``."""

    async def wake(self) -> None:
        """Take it again."""


# --- tasks ------------------------------------------------------------------------------------------------------
class TaskSource(Plugin):
    """Gives tasks, always the same ones in the same order for the same config.

    >>> class Sums(TaskSource):
    ...     name = "sums"
    ...     def tasks(self):
    ...         return [Task(f"sum-{n}", f"What is {n}+{n}?", str(2 * n)) for n in range(10)]
    """

    @abstractmethod
    def tasks(self) -> Iterable[Task]: ...


# --- stages and trainers ----------------------------------------------------------------------------------------
class Reporter(Protocol):
    """Progress for a person, metrics for ``metrics.jsonl``."""

    def progress(self, description: str, total: int | None = None) -> AbstractAsyncContextManager[Any] | Any:
        """A context manager whose value has ``advance(n=1, **fields)``; ``fields`` are shown beside the rate."""

    def metrics(self, **values: float | int | str) -> None:
        """One line of ``metrics.jsonl``, with the stage's name and the time added. The canaries see it: ``loss``, ``grad_norm``
        and, in RL, ``entropy`` and ``logprob_gap_mean``. Raises ``StageFailed`` where one of them stops the stage; let it."""

    def note(self, text: str) -> None:
        """One line for the person."""


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """One trajectory to make: ``sample`` tells the rollouts of one task apart and seeds their noise."""

    task: Task
    sample: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """Task id and sample: what the trajectory is found by."""
        return self.task.id, self.sample


@dataclass
class TrainContext:
    """All that a trainer gets. It reads trajectories (``sft``) or makes them (``rollout``, RL)."""

    folder: Path
    """The stage's own folder: checkpoints to resume from go to ``folder / "training"``, the result to
    ``folder / "checkpoint"``."""
    model: str
    """The checkpoint folder, or hub id, to start from."""
    seed: int
    reporter: Reporter
    trajectories: Sequence[Trajectory] = ()
    tasks: Sequence[Task] = ()
    rollout: Callable[[Sequence[RolloutRequest]], list[Trajectory]] | None = None
    """RL: makes and scores trajectories with the weights loaded last, in the order of the requests; blocks until done,
    under a deadline. To be called from any thread but the runtime's own."""
    load_weights: Callable[[Weights], None] | None = None
    """RL: gives the engine new weights; blocks until they are in place."""
    sleep: Callable[[], None] | None = None
    """RL: has the engine give its device's memory back until weights are loaded again."""
    temperature: float = 1.0
    """RL: the temperature that ``rollout`` samples at."""
    max_tokens: int = 0
    """RL: response tokens of a trajectory at most."""
    report_to: tuple[str, ...] = ()
    """Accelerate trackers: ``tensorboard``, ``wandb``, ``trackio``."""
    launch: LaunchSettings | None = None
    """The processes that train together, of which this is one; ``None``: it is alone. The trainer checks that they have
    found each other, all ``launch.world`` of them. Each gets the same trajectories and tasks, and rolls out for itself."""


class Trainer(Plugin):
    """Turns a checkpoint and trajectories into a checkpoint. Runs in the calling thread; resumable: called again with
    the same folder, it goes on from the last step that it saved."""

    launcher: ClassVar[str | None] = None
    """The module that starts it in several processes, where it can be: ``python -m LAUNCHER JOB``, see ``launch``."""

    @property
    def rollouts_per_step(self) -> int:
        """How many batches of rollouts a step may make, one after another, while the other processes wait for it."""
        return 0

    def inputs(self, trajectory: Trajectory) -> tuple[Sequence[int], Sequence[int]] | None:
        """What it is fed for this trajectory, for ``cort check tokens``: the ids, and for each whether there is a loss on it
        (1 or 0). Made the way that ``train`` makes it; ``None``: it does not say."""
        return None

    @abstractmethod
    def train(self, context: TrainContext) -> Checkpoint: ...


@dataclass
class StageResult:
    """What a stage leaves behind. ``None`` where it makes no such thing."""

    checkpoint: Path | None = None
    """Later stages start from it."""
    trajectories: Path | None = None
    """A ``trajectories.jsonl`` that later stages may name as ``data``."""
    tasks: Path | None = None
    """A ``tasks.jsonl`` (``inputs.write_tasks``) that later stages may name among their ``tasks``, by the stage's name."""
    report: list[dict[str, Any]] = field(default_factory=list)
    """Records for ``results.json``."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Figures for the closing table and ``stage.json``."""


class Stage(Plugin):
    """A checkpoint in; a checkpoint, a data set or a report out. ``Config`` holds the stage table's own keys."""

    produces_checkpoint: ClassVar[bool] = False
    produces_tasks: ClassVar[bool] = False
    needs_model: ClassVar[bool] = True
    """False where the stage makes its model from nothing."""
    default_trainer: ClassVar[str | None] = None
    """Name of the trainer whose ``Config`` the stage's ``options`` table is, unless the stage names another."""

    @abstractmethod
    def run(self, run: Run) -> StageResult:
        """``run`` gives the stage its folder, its inputs and the rollouts; see ``pipeline.Run``."""


class Executor(Plugin):
    """Where rollouts run. ``local`` is this process; another spreads them over machines."""

    @abstractmethod
    def map(self, job: RolloutJob, runtime: Runtime) -> Iterator[list[Trajectory]]:
        """The lines of descent of the job's requests, scored, in whatever order they finish; each ends with the final
        trajectory. ``runtime`` is this process's own, for executors that roll out here."""


HealthState = Literal["good", "warning", "broken"]


@dataclass(frozen=True)
class HealthReport:
    """One line of ``cort doctor``."""

    name: str
    """What was looked at: a few words."""
    state: HealthState
    """``warning``: it works, but less well or less safely than it could. ``broken``: what needs it fails."""
    detail: str
    """What was found."""
    fix: str = ""
    """What to do about it, as a rule a line to type."""


@dataclass(frozen=True)
class HealthContext:
    """What a health check is told."""

    folder: Path
    """The folder of the run, which need not be there yet; without a recipe, the one that runs go to."""
    plan: Plan | None = None
    """Of the recipe that the doctor was asked about: what it needs is to be looked at."""


class HealthCheck(Plugin):
    """Looks at what must work on this machine, by trying it where that can be done.

    What it raises, and where it does not end within ``timeout_s``, is reported as broken and attributed to its
    distribution; the other checks go on.

    >>> import shutil
    >>> class Graphviz(HealthCheck):
    ...     name = "graphviz"
    ...     def check(self, context):
    ...         there = shutil.which("dot")
    ...         yield HealthReport("graphviz", "good" if there else "broken", there or "no dot", "apt install graphviz")
    """

    timeout_s: ClassVar[float] = 60.0

    @abstractmethod
    def check(self, context: HealthContext) -> Iterable[HealthReport]:
        """Blocks. Leaves nothing behind."""
