"""What a recipe says, as pydantic models: types, bounds, defaults and the help of every key."""

from __future__ import annotations

import itertools
import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from cort_framework.guards.canaries import Canaries
from cort_framework.interfaces import PluginConfig
from cort_framework.recipe.tables import Source, Table, to_toml

PROMPTS = {
    "tool": (
        "{problem}\nPlease integrate natural language reasoning with python programs to solve the problem above, "
        "and put your final answer within \\boxed{}."
    ),
    "natural": "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}.",
}
"""Templates of the user's turn; no system prompt goes before it. ``tool`` is the paper's line."""

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Options = dict[str, Table]
"""Tables for plugins, by key. ``use`` in one names the plugin where that differs from the key."""

M = TypeVar("M", bound=BaseModel)


class RolloutSettings(PluginConfig):
    """How trajectories are made. ``[rollout]`` sets them for all stages, a stage's ``rollout`` table for itself."""

    engine: str = "transformers"
    """What generates tokens: a key of ``[engines]`` or the name of an engine."""
    executor: str = "local"
    """Where rollouts run: a key of ``[executors]`` or the name of an executor."""
    prompt: str = "tool"
    """The template of the user's turn: a key of ``[prompts]``."""
    temperature: float = Field(0.6, ge=0, le=10)
    """0 takes the likeliest token."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Share of the probability that is sampled from."""
    max_tokens: int = Field(1024, ge=1)
    """Response tokens a trajectory, whoever wrote them."""
    max_tool_calls: int = Field(15, ge=0)
    """Calls a trajectory; the last output says that no more code can be run."""
    check_every: int = Field(64, ge=1)
    """Tokens between two looks of the hint injectors."""
    max_hints: int = Field(8, ge=0)
    """Hints a trajectory; after that many it goes on without."""
    concurrency: int = Field(64, ge=1)
    """Trajectories in the making at once."""
    call_timeout_s: Seconds = 90
    """One tool call, its session's start included. Beyond the tool's own limit, which the model is told of: this one
    takes the tool for broken."""
    turn_timeout_s: Seconds = 240
    """One stretch of generation, or one call with its second try."""
    trajectory_timeout_s: Seconds = 600
    """One trajectory."""
    batch_timeout_s: Seconds = 3600
    """All trajectories of one request. What is not done by then has failed, and the others go on to be used."""
    max_output_characters: int = Field(800, ge=2)
    """A longer tool output keeps its first and last half of this."""
    cassette: str | None = None
    """A file that every tool call is kept in with what came of it; a call that is in it is answered from it."""
    cassette_miss: Literal["call", "error"] = "call"
    """A call that is not in the cassette: `call` makes and keeps it; `error` ends the trajectory with an error of the
    machinery (with `max_error_rate = 0`, the stage). With `error` no tool is opened: no kernel has to be there."""

    @property
    def replays(self) -> bool:
        """No tool is needed: the cassette answers all calls."""
        return self.cassette is not None and self.cassette_miss == "error"

    @model_validator(mode="after")
    def deadlines_nest(self) -> Self:
        names = ("call_timeout_s", "turn_timeout_s", "trajectory_timeout_s", "batch_timeout_s")
        for inner, outer in itertools.pairwise(names):
            if getattr(self, inner) > getattr(self, outer):
                raise ValueError(
                    f"{inner} ({getattr(self, inner):g}) is longer than {outer} ({getattr(self, outer):g})"
                )
        return self


class RolloutTable(RolloutSettings):
    """``[rollout]``: the settings, and the tools that a model can call."""

    tools: Options = {}
    """The tools and their options: ``[rollout.tools.python]``."""

    @property
    def settings(self) -> RolloutSettings:
        return RolloutSettings(**self.model_dump(exclude={"tools"}))


class LaunchSettings(PluginConfig):
    """How many processes a training runs in. ``[launch]`` sets it for all stages that train, a stage's ``launch`` table
    for itself; it says how fast and how large, not what is trained."""

    processes: int = Field(1, ge=1)
    """Processes on each machine; with GPUs, one for each."""
    machines: int = Field(1, ge=1)
    """Machines. The same command runs on each of them, with the run's folder on a file system that they share."""
    rank: int = Field(0, ge=0)
    """Which of the machines this is. Machine 0 runs the stages; the others (`--set launch.rank=1`) join its trainings."""
    address: str | None = Field(None, pattern=r"^[^\s:]+:\d{1,5}$")
    """Where the machines meet: a name and a free port of machine 0, `host:29500`."""
    devices: str | None = None
    """Which GPUs of a machine train, as in CUDA_VISIBLE_DEVICES: `0,1`; the others are left to an engine."""
    threads: int | None = Field(None, ge=1)
    """Processor threads of each process; the machine's cores shared out where it is not given."""
    timeout_s: Seconds = 7200
    """How long a process waits for the others; longer than the rollouts of a step may take."""
    fsdp: Table | None = None
    """Shard model, gradients and optimizer by PyTorch's FSDP2. The keys are Accelerate's `FSDP_...` settings, in lower
    case: `fsdp.offload_params = true`; `fsdp = {}` takes the defaults. Needs GPUs."""
    deepspeed: Table | None = None
    """Shard by DeepSpeed. The keys are Accelerate's `ACCELERATE_DEEPSPEED_...` settings: `deepspeed.zero_stage = 3`."""
    environment: dict[str, str] = {}
    """Further environment variables of the training processes."""

    @property
    def world(self) -> int:
        """Processes that train together."""
        return self.processes * self.machines

    @property
    def several(self) -> bool:
        """Whether a training needs processes of its own."""
        return self.world > 1 or self.sharding is not None

    @property
    def sharding(self) -> Literal["fsdp", "deepspeed"] | None:
        return "fsdp" if self.fsdp is not None else "deepspeed" if self.deepspeed is not None else None

    @model_validator(mode="after")
    def machines_can_meet(self) -> Self:
        if self.rank >= self.machines:
            raise ValueError(f"rank {self.rank} is none of {self.machines} machines: they count from 0")
        if self.machines > 1 and self.address is None:
            raise ValueError(
                "several machines need an address to meet at: a name and a free port of machine 0"
            )
        if self.fsdp is not None and self.deepspeed is not None:
            raise ValueError("fsdp and deepspeed are two ways to shard: choose one")
        return self


class TaskTable(PluginConfig):
    """``[tasks.NAME]``: a set of tasks. The keys beside ``source`` are the source's own."""

    model_config = ConfigDict(extra="allow")
    source: str
    """The task source."""
    use: str | None = None
    """``distribution/name``, where two distributions have a source of this name."""


class RewardTable(PluginConfig):
    """``[rewards.NAME]``: a reward function. The keys beside ``weight`` are its own."""

    model_config = ConfigDict(extra="allow")
    weight: float = Field(1.0, allow_inf_nan=False)
    """Its factor in the sum."""
    use: str | None = None
    """The reward function, where its name is not the table's key."""


class StageTable(PluginConfig):
    """``[[stage]]``: one step of the run. The keys beside these are the stage kind's own."""

    model_config = ConfigDict(extra="allow")
    name: FolderName
    """Its name: the folder in the run, and how profiles and ``--set`` address it."""
    kind: str
    """The stage kind."""
    skip: bool = False
    """Leave it out; a profile or ``--set stage.NAME.skip=false`` puts it back."""
    model: str | None = None
    """An earlier stage, or a model as in the recipe's ``model``; by default the last checkpoint made before."""
    trainer: str | None = None
    """The trainer, where it is not the kind's usual one."""
    options: Table = {}
    """The trainer's settings."""
    rollout: Table = {}
    """What differs from the recipe's ``[rollout]``, tools apart."""
    launch: Table = {}
    """What differs from the recipe's ``[launch]``."""
    canaries: Table = {}
    """What differs from the recipe's ``[canaries]``."""


class Recipe(PluginConfig):
    """All that a run is made from, as a recipe's TOML says it, after profile and ``--set``."""

    schema_version: Literal[1] = Field(1, alias="schema")
    """Version of the recipe format."""
    name: FolderName
    """Names the run's folder."""
    seed: int = Field(0, ge=0)
    """Every random draw of the run comes from it."""
    model: str | None = None
    """The model to start from: a folder, a hub id, or the name of a model that a plugin ships."""
    deterministic: bool = True
    """Same seed, same bytes: fixed slots in the batch, calls admitted in task order."""
    report_to: list[str] = []
    """Accelerate trackers: ``tensorboard``, ``wandb``, ``trackio``."""
    max_error_rate: float = Field(0.05, ge=0, le=1)
    """A stage stops as soon as more than this share of its trajectories, rounded up, has failed by another's fault than the
    model's: the machinery, a deadline, a plugin that raises or gives nonsense. What was made is kept."""
    prompts: dict[str, str] = PROMPTS
    """Templates of the user's turn, with ``{problem}`` in them and, for native calls, ``{tools}``; ``tool`` and ``natural``
    are always there."""
    tasks: dict[str, TaskTable] = {}
    """Sets of tasks."""
    rollout: RolloutTable = RolloutTable()
    """How trajectories are made."""
    launch: LaunchSettings = LaunchSettings()
    """How many processes train."""
    canaries: Canaries = Canaries()
    """Signs that a run goes wrong, and what is done about each."""
    engines: Options = {}
    """Options of engines."""
    executors: Options = {}
    """Options of executors."""
    hints: Options = {}
    """Hint injectors."""
    filters: Options = {}
    """Filters."""
    rewards: dict[str, RewardTable] = {}
    """Reward functions and their weights."""
    stage: list[StageTable] = Field(min_length=1)
    """The steps of the run, in order."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)
    _source: Source = PrivateAttr(default_factory=Source)

    @field_validator("prompts")
    @classmethod
    def prompts_hold_the_problem(cls, prompts: dict[str, str]) -> dict[str, str]:
        for name, template in prompts.items():
            if "{problem}" not in template:
                raise ValueError(f"prompt {name!r} has no {{problem}} in it")
        return {**PROMPTS, **prompts}

    @model_validator(mode="after")
    def stages_have_their_own_names(self) -> Self:
        names = [s.name for s in self.stage]
        if twice := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"two stages are called {', '.join(sorted(twice))}")
        if all(s.skip for s in self.stage):
            raise ValueError("every stage is skipped")
        return self

    def __eq__(self, other: object) -> bool:
        """Equal settings, whatever file they came from."""
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    @property
    def source(self) -> Source:
        """The file, profile and overrides that the recipe came from."""
        return self._source

    def to_toml(self) -> str:
        """The recipe as it stands, profile and overrides applied, as TOML that loads to an equal recipe."""
        return to_toml(self.model_dump(mode="json", exclude_defaults=True))


def validated(model: type[M], data: Any) -> M:
    """Checks tables as strictly as JSON is checked: no number out of a string, but a list may be a tuple, a string a
    path. Raises pydantic's ``ValidationError``."""
    return model.model_validate_json(json.dumps(data, default=str), strict=True)
