"""TRL's ``GRPOTrainer``, with the loss on what the policy sampled, weighed by the log-probs that it sampled with."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl import GRPOTrainer

from cort_trl.packing import layout
from cort_trl.rollouts import Rollouts


class PolicyTrainer(GRPOTrainer):
    """What TRL 1.16 does for vLLM alone, for any engine.

    Without a policy lag the policy that the ratio is taken to is the one that sampled, by the log-probs that it sampled
    with. With one it is the policy as it stood when the step began, and each token's loss is weighed with how much likelier
    the token is to that policy than to the one that sampled it, ``importance_cap`` at most (truncated importance sampling;
    decoupled as in Hilton et al. 2021, arXiv 2110.00641): the clip range is then about this step's updates alone. That is
    what the ratio is taken to as well where others' tokens are trained on, which nobody sampled.
    """

    rollout_func: Rollouts
    packing: str = ""
    """The attention that keeps sequences of one row apart; empty where each has a row of its own, padded."""
    age: int = 0
    """Versions between the weights that sampled this step's trajectories and those that the step began with."""
    _recomputed: Tensor | None = None
    _to_correct: dict[str, Tensor] | None = None

    def note(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._metrics["train"][f"rollout/{name}"].append(float(value))

    def _gather_figures(self) -> None:
        """What is ours among the metrics is of this process's own trajectories; what is logged is of everyone's."""
        metrics = self._metrics["train"]
        ours = {k: v for k, v in metrics.items() if k.startswith(("rollout/", "importance/", "logprob_gap"))}
        everyone = gather_object([ours])
        for name in dict.fromkeys(name for figures in everyone for name in figures):
            metrics[name] = [value for figures in everyone for value in figures.get(name, ())]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self._recomputes:
            # moved, not shared: TRL shuffles each entry, which would make two tensors of one
            output["old_per_token_logps"] = output.pop("sampling_per_token_logps")
        return output

    @property
    def _lags(self) -> bool:
        return self.rollout_func.config.policy_lag > 0

    @property
    def _for_others(self) -> bool:
        """The loss is on tokens that nobody sampled, too."""
        return set(self.rollout_func.config.train_on) != {"model"}

    @property
    def _recomputes(self) -> bool:
        """What the ratio is taken to has to be computed."""
        return self._lags or self._for_others

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        if self._lags:
            # an advantage a token, so that the weight is on the policy's loss and not on the KL term
            advantages = inputs["advantages"][:, None].repeat(1, inputs["completion_ids"].shape[1])
            inputs = {**inputs, "advantages": advantages}
            if "old_per_token_logps" in inputs:
                self._correct(inputs, inputs["old_per_token_logps"])
            else:  # one update a step: the loss's own forward pass says what the policy says as the step begins
                self._to_correct = inputs
        loss = super()._compute_loss(model, inputs)
        updates = self.args.steps_per_generation // self.args.gradient_accumulation_steps
        first = self.state.global_step % updates == 0
        if first and self.age == 0:  # the weights are still those that sampled
            mask = inputs["completion_mask"] * inputs["tool_mask"]
            sampled = inputs.get("sampling_per_token_logps", inputs.get("old_per_token_logps"))
            assert self._recomputed is not None and sampled is not None
            if self._for_others:
                mask = mask * (sampled != 0)
            gap = ((self._recomputed - sampled) * mask).abs()
            self._metrics["train"]["logprob_gap"].append(gap.max().item())
            self._metrics["train"]["logprob_gap_mean"].append((gap.sum() / mask.sum().clamp(min=1)).item())
        self._recomputed = None
        return loss

    def _correct(self, inputs: dict[str, Tensor], now: Tensor) -> None:
        """Weigh the advantages, in place, by the ratio of the step's first policy (log-probs ``now``) to the sampling one."""
        trained = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        ratio = (now - inputs["sampling_per_token_logps"]).exp()
        cap = self.rollout_func.config.importance_cap
        inputs["advantages"] *= ratio.clamp(max=cap)
        if trained.any():
            self._metrics["train"]["importance/mean"].append(ratio[trained].mean().item())
            self._metrics["train"]["importance/max"].append(ratio[trained].max().item())
            self._metrics["train"]["importance/capped"].append((ratio[trained] > cap).float().mean().item())

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """As TRL has it, ``[sequences, logits_to_keep]``, but of sequences that begin at position 0.

        TRL pads prompts on the left, and all of a step to its longest. In float32 a rotary model's log-probs move
        by up to 1e-4 with the padding; and most of it is work for nothing.
        """
        learning = torch.is_grad_enabled()
        if model is self.model and not learning and not self._recomputes and not _without_adapters(model):
            # TRL asks what the policy would say now of a step that several updates share; we know what it said
            nothing = torch.zeros((), device=input_ids.device).expand(len(input_ids), logits_to_keep)
            return nothing, None, None
        work = self._of_packed if self.packing else self._of_padded
        rows = batch_size or len(input_ids)
        found = work(model, input_ids, attention_mask, logits_to_keep, rows, **kwargs)
        if learning:
            self._recomputed = found[0].detach()
        if self._to_correct is not None:
            self._correct(self._to_correct, found[0].detach())
            self._to_correct = None
        return found

    def _of_padded(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, keep: int, batch_size: int, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Each forward pass takes sequences of like length, padded on the right to the longest of its own."""
        order = attention_mask.sum(1).argsort(stable=True)
        logps, entropies = [], []
        for rows in order.split(batch_size):
            ids, mask = _begin_at_zero(input_ids[rows], attention_mask[rows])
            found = super()._get_per_token_logps_and_entropies(model, ids, mask, ids.shape[1] - 1, **kwargs)
            # column t of what is found is for the token at position t + 1
            prompt = attention_mask[rows, :-keep].sum(1, keepdim=True)
            columns = prompt - 1 + torch.arange(keep, device=prompt.device)
            columns = columns.clamp(max=ids.shape[1] - 2)  # behind its end a sequence has no loss
            logps.append(found[0].gather(1, columns))
            entropies.append(None if found[1] is None else found[1].gather(1, columns))
        back = order.argsort()
        return torch.cat(logps)[back], None if entropies[0] is None else torch.cat(entropies)[back], found[2]

    def _of_packed(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        keep: int,
        batch_size: int,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Each forward pass takes its sequences end to end in one row: see ``packing``."""
        router = {"output_router_logits": True} if compute_aux_loss else {}
        logps, entropies, losses = [], [], []
        for ids, mask in zip(
            input_ids.split(batch_size), attention_mask.bool().split(batch_size), strict=True
        ):
            labels = ids.clone()
            labels[:, :-keep] = -100
            with self.accelerator.autocast():
                found = model(
                    input_ids=ids[mask][None],
                    labels=labels[mask][None],
                    fused_lm_head=True,
                    **layout(mask.sum(1).tolist(), self.packing, ids.device),
                    **router,
                )
            logps.append(_spread(found.log_probs[0], mask)[:, -keep:])
            if compute_entropy:
                entropies.append(_spread(found.entropy[0], mask)[:, -keep:])
            if compute_aux_loss:
                losses.append(found.aux_loss)
        return (
            torch.cat(logps),
            torch.cat(entropies) if entropies else None,
            torch.stack(losses).mean() if losses else None,
        )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self.accelerator.num_processes > 1:
            self._gather_figures()
        for name in ("logprob_gap", "importance/max"):  # TRL logs means; these are about the worst
            if values := self._metrics["train"].get(name):
                self._metrics["train"][name] = [max(values)]
        super().log(logs, *args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # first: a checkpoint counts once the trainer's state is there, and that is written last
        self.rollout_func.save(self)
        super()._save_checkpoint(model, trial)


def _begin_at_zero(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sequences padded on both sides, ``[sequences, width]``, as sequences padded on the right to the longest."""
    length = mask.sum(1, keepdim=True)
    columns = torch.arange(int(length.max()), device=ids.device)
    source = (mask.argmax(1, keepdim=True) + columns).clamp(max=ids.shape[1] - 1)
    return ids.gather(1, source), (columns < length).to(mask.dtype)


def _spread(values: Tensor, inside: Tensor) -> Tensor:
    """What a packed row says of the token after each, ``[tokens - 1]``, to each token's own place in ``[sequences, width]``."""
    return values.new_zeros(inside.shape).masked_scatter(inside, torch.nn.functional.pad(values, (1, 0)))


def _without_adapters(model: Any) -> bool:
    """LoRA's layers are switched off: then it is the reference model that is asked."""
    return any(getattr(layer, "disable_adapters", False) is True for layer in model.modules())
