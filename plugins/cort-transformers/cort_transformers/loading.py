"""From a folder or a hub id to a model and a tokenizer, with errors that say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from cort_framework import RequestError
from cort_transformers.tokenizer import HuggingFaceTokenizer


def load_model(reference: str, dtype: str, device: str) -> Any:
    """The model in evaluation mode. Raises ``RequestError``."""
    offline = _must_exist(reference)
    bars = logging.is_progress_bar_enabled()
    if offline:
        logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(reference, dtype=dtype, local_files_only=offline)
    except (OSError, ValueError) as error:
        raise _cannot_load("model", reference, error) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    return model.to(device).eval()


def load_tokenizer(reference: str, model: Any) -> HuggingFaceTokenizer:
    """The tokenizer, with every id that ends a sequence: the tokenizer's own and the generation config's."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(reference)
    except (OSError, ValueError) as error:
        raise _cannot_load("tokenizer", reference, error) from error
    configured = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    return HuggingFaceTokenizer(tokenizer, frozenset(i for i in ids if i is not None))


def _must_exist(reference: str) -> bool:
    """Whether all of the model is on this machine. Asks the hub once, because loading asks it many times over."""
    path = Path(reference)
    looks_like_a_path = path.is_absolute() or reference.startswith((".", "~")) or len(path.parts) > 2
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise RequestError(
                f"{path} is no model folder: it holds no config.json", "name a save_pretrained folder"
            )
        return True
    if path.exists() or looks_like_a_path:
        raise RequestError(
            f"the model path {path} does not exist or is no folder", "name a save_pretrained folder"
        )
    if isinstance(try_to_load_from_cache(reference, "config.json"), str):
        return False
    try:
        HfApi().model_info(reference, timeout=10)
    except Exception as error:
        raise _cannot_load("model", reference, error) from error
    return False


def _cannot_load(what: str, reference: str, error: Exception) -> RequestError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return RequestError(
        f"cannot load the {what} of '{reference}': {reason}",
        "name a save_pretrained folder, or a model id of the Hugging Face hub that this machine can reach",
    )
