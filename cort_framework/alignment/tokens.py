"""What a tokenizer and its chat template show by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cort_framework.alignment.findings import ANSWER, PROBLEM, Finding, lost_part, quoted
from cort_framework.interfaces import Tokenizer, Tool
from cort_framework.rendering import prompt_turn, token_texts
from cort_framework.types import Task

NEEDED = [chr(c) for c in range(33, 127)] + ["\n", "\n\n", " ", "    ", "\n    "]
"""What programs are written in; without any of it none can be."""
WISHED = "\té×≤√²π中“—😀"
"""What tools print as well."""
MEND = "mend chat_template in the model's tokenizer_config.json (or chat_template.jinja)"


def check_prompt(tokenizer: Tokenizer, name: str, template: str, tools: Sequence[Tool]) -> Iterator[Finding]:
    """The message has to stand in the prompt as the recipe makes it, and the model to be asked for its turn."""
    task = Task("check", PROBLEM)
    try:
        turn = prompt_turn(tokenizer, template, task, tools)
    except Exception as error:
        text = f"the chat template refuses a user's message: {type(error).__name__}: {error}"
        yield Finding("prompt", "fault", text, MEND)
        return
    message = prompt_turn(_Plain(), template, task, tools).text.strip()
    start = turn.text.find(message)
    if start < 0:
        text = f"the chat template changes the message of '{name}': {lost_part(message, turn.text)}"
        yield Finding("prompt", "fault", text, MEND)
        return
    if turn.ids[-1] in tokenizer.eos_ids:
        end = quoted(tokenizer.decode(turn.ids[-1:]))
        yield Finding("prompt", "fault", f"it ends with {end}, which ends a sequence: nothing follows", MEND)
        return
    if start and turn.ids[0] == turn.ids[1]:
        first = quoted(tokenizer.decode(turn.ids[:1]))
        yield Finding("prompt", "note", f"it begins with {first} twice", MEND)
    after = turn.text[start + len(message) :]
    if not after.strip():
        text = "the chat template writes nothing after the message: the model is not told that it is its turn"
        yield Finding("prompt", "note", text, MEND)
    yield Finding(
        "prompt", "ok", f"'{name}' stands in it as it is, {len(turn.ids)} tokens; then {quoted(after)}"
    )


def check_thinking(tokenizer: Tokenizer) -> Iterator[Finding]:
    after = after_problem(tokenizer)
    if "</think>" in after:
        text = "the chat template closes the thinking before the model has begun: all of it counts as answer"
        yield Finding("thinking", "note", text, "use the template of the model that thinks")
    opener, closer = ("prompt" if mark in after else "model" for mark in ("<think>", "</think>"))
    yield Finding("thinking", "ok", f"opened by the {opener}, closed by the {closer}")
    thought = "Seven is a number."
    said = f"<think>\n{thought}\n</think>\n\n{ANSWER}"
    whole = tokenizer.decode(_conversation(tokenizer, said))
    if whole and said not in whole:
        what = "rewrites" if thought in whole else "leaves out"
        text = (
            f"the chat template {what} the thinking of messages that have passed. Here none passes it, for trajectories "
            "stay tokens; a trainer that renders messages would learn from other text"
        )
        yield Finding("thinking", "note", text, "export with `--format trl`, which has ids and mask")


def check_characters(tokenizer: Tokenizer) -> Iterator[Finding]:
    for text in NEEDED:
        if (back := there_and_back(tokenizer, text)) != text:
            words = f"{quoted(text)} comes back as {quoted(back)}: programs cannot be written in these tokens"
            mend = "choose another model, or mend the normalizer of its tokenizer"
            yield Finding("fence", "fault", words, mend)
            return
    changed = [f"{c} as {back}" for c in WISHED if (back := there_and_back(tokenizer, c)) != c]
    if changed:
        text = f"what the tokens cannot hold comes back otherwise: {', '.join(changed)}"
        yield Finding("output", "note", text, "the model sees that, not what a tool printed")
    for end in sorted(tokenizer.eos_ids):
        word = tokenizer.decode([end])
        if end in tokenizer.encode(word):
            text = (
                f"an output that prints {quoted(word)} would end the turn: encode makes the one token of it"
            )
            yield Finding("output", "fault", text, "the engine's `encode` has to treat text as text")


def check_end(tokenizer: Tokenizer) -> Iterator[Finding]:
    mend = "set eos_token in tokenizer_config.json, or eos_token_id in generation_config.json"
    if not tokenizer.eos_ids:
        yield Finding("end", "fault", "no token ends a sequence: all would run to max_tokens", mend)
        return
    conversation = _conversation(tokenizer, ANSWER)
    if conversation and usual_end(tokenizer) is None:
        after = tokenizer.decode(conversation).rpartition(ANSWER)[2]
        ends = " or ".join(quoted(tokenizer.decode([i])) for i in sorted(tokenizer.eos_ids))
        text = f"after an answer the chat template writes {quoted(after)}, without {ends}, which ends a sequence here"
        yield Finding("end", "note", text, f"where a model would write on after its answer, {mend}")


def after_problem(tokenizer: Tokenizer) -> str:
    """What the chat template writes after the message."""
    prompt = prompt_turn(tokenizer, "{problem}", Task("check", PROBLEM)).text
    return prompt.rpartition(PROBLEM)[2]


def usual_end(tokenizer: Tokenizer) -> int | None:
    """The token, of those that end a sequence, with which the chat template ends an answer."""
    ids = _conversation(tokenizer, ANSWER)
    texts = token_texts(tokenizer, ids)
    answered, read = "".join(texts).rfind(ANSWER) + len(ANSWER), 0
    for token, text in zip(ids, texts, strict=True):
        read += len(text)
        if read > answered and token in tokenizer.eos_ids:
            return token
    return None


def there_and_back(tokenizer: Tokenizer, text: str) -> str:
    """What ``text`` is, between two letters, once it has been tokens."""
    back = tokenizer.decode(tokenizer.encode(f"a{text}b")).strip()
    return back[1:-1] if back[:1] == "a" and back[-1:] == "b" else back


def _conversation(tokenizer: Tokenizer, answer: str) -> list[int]:
    """A message and its answer through the chat template; empty where it refuses them."""
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    try:
        return tokenizer.apply_chat_template(messages)
    except Exception:  # it is the template's own, and may raise anything
        return []


class _Plain:
    """A token a character, and no chat template: what a message is before it goes through one."""

    eos_ids: frozenset[int] = frozenset()

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [ord(c) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return self.encode(messages[-1]["content"])
