"""What a sentence of a model's thinking announces, in English and Chinese: work by hand, a calculation, a doubt about a result,
or something that is no fault (other code, the logic of a program, the wording of the problem, an estimate)."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# --- announcements --------------------------------------------------------------------------------------------------
_CALCULATE = (
    r"(?:compute|calculate|multiply|add|subtract|divide|evaluate|expand|simplify|enumerate|list|count|factor|tabulate|square"
    r"|sum|work (?:it|this|that|them|out)|write (?:down|out)|(?:do|figure out|go through|carry out|run through|step through) (?:it|this|that|the|them|all|each))"
)
_CALCULATING = r"(?:comput|calculat|multiply|add|subtract|divid|evaluat|expand|enumerat|list|count|tabulat|squar|summ)ing"
_BY_HAND = _any(
    r"\bby hand\b",
    r"\bmanual(?:ly)?\b",
    r"\bin my head\b",
    r"\bmental(?:ly)?\b",
    r"\bon paper\b",
    r"\b(?:on my own|(?:it|this|that|them|these|those|up) myself)\b",
    r"\bwith(?:out| no) (?:any )?(?:code|a program|a calculator|python)\b",
    r"\blong(?:hand)? (?:multiplication|division)\b",
    r"\bsynthetic division\b",
    r"手算|手动|手工|笔算|心算|竖式|口算|自己.{0,2}算",
)
_STEPWISE = _any(
    rf"\b(?:{_CALCULATE}|{_CALCULATING}|do it|work it out)\b.{{0,60}}\b(?:step[- ]by[- ]step|one by one|one at a time|digit by digit"
    r"|term by term|piece by piece|case by case)",
    r"\b(?:go|going|run|running) through\b.{0,60}\b(?:one by one|one at a time|each)\b",
    r"一步一步.{0,4}[算来]|逐步计算|逐个|逐项|逐一|依次",
)
_INTENT = _any(
    r"\b(?:let me|let's|let us|i'll|i will|i'd|(?:i|we) (?:can|could|should|need to|have to|just))"
    rf"\b(?:\W+\w+){{0,2}}\W+{_CALCULATE}\b",
    rf"\b(?:now|next|then|first),? (?:i |we )?{_CALCULATE}\b",
    rf"\b{_CALCULATING}\b",
    r"\b(?:make|fill in|build) (?:a|the) table\b",
    r"让我.{0,8}算|我们?来?.{0,4}计算|算一下|列个?表|列举|展开|通分|计算[：:]|试除|我来.{0,2}数",
)
# --- doubts ---------------------------------------------------------------------------------------------------------
_CHECK = _any(
    r"\b(?:double[- ]?check|re-?check|check|verify|re-?verify|confirm)(?:ing)?\b",
    r"\b(?:(?:make|be|being|making) (?:absolutely |really |quite )?(?:sure|certain)|to be (?:on the )?safe|cross[- ]check\w*|sanity)\b",
    r"\bre-?(?:compute|calculate|do|derive|count|add|evaluate|run|work)\b",
    r"\bsee (?:if|whether) (?:that|this|it) (?:holds|is right|makes sense|adds up|works)",
    r"\b(?:prove|convince myself)\b",
    r"\bplug\w*\b.{0,40}\b(?:back|in(?:to)?)\b|\bsubstitut\w+\b.{0,30}\b(?:back|into the (?:first|original|equations?))\b",
    r"\btest(?:ing)? (?:it|this|that|these|them)\b|\b(?:whether|if) (?:this|it|that) (?:agrees|is right|is correct|makes sense|matches)\b",
    r"\bthink (?:it|this|that) (?:over|through)\b|\b(?:derive|work|count|add|do) (?:it|this|this one|that|them)(?: out)? (?:myself|on my own|again)\b",
    r"验证|检查|检验|核对|核实|核验|确认|验算|复核|复查|再算|再数|再来一遍|重新算|重新计算|数一数",
)
_QUESTION = _any(
    r"\b(?:trust|doubt|suspicious|suspect|skeptical|sceptical|hesitant|wonder (?:if|whether)|worried)\w*\b",
    r"\b(?:surprising|unexpected|unlikely|implausible|fishy|weird)\b",
    r"\bis (?:that|this|it|the (?:result|answer|output|number|value|count|sum|total)|\S{1,24}) "
    r"(?:really |actually |truly |even |indeed )?(?:right|correct|true|accurate|plausible|possible|reasonable)\b",
    r"\b(?:is|are|was) (?:it|that|this|they|there) (?:really|actually|truly)\b",
    r"\b(?:uneasy|nervous|uncomfortable|hesitate|not at ease)\b|\bwhat if\b.{0,60}\b(?:wrong|off|error|missed|incorrect)\b",
    r"\b(?:could|might|may) (?:well )?be (?:off|wrong|mistaken|incorrect)\b|\brely on\b|\bgets?\b.{0,40}\bwrong\b",
    r"\b(?:ought to|should) be (?:more|less|fewer|bigger|larger|smaller|higher|lower|about|around|\S{1,14}[.,])",
    r"\b(?:more|less|fewer|\w+er) than (?:i|one) (?:\w+ )?(?:imagined|expected|thought|guess|anticipated|would)\w*\b",
    r"\b(?:did not|didn't|wouldn't have|would not have) (?:really )?(?:expect|guess)\w*\b|\b(?:would|'d) have (?:guessed|expected|thought)\b",
    r"\b(?:match|fit|agree with|square with)(?:es)? (?:with )?my (?:intuition|expectation|memory|estimate|guess)\w*\b|\bi (?:have|had) a feeling\b",
    r"\bthink (?:it|this|that) (?:all )?(?:over|through)\b|\breason (?:about )?(?:whether|if|it|this|that)\b",
    r"\bdid (?:\w+ ){1,5}really\b|\bmaybe i (?:shouldn't|should not)\b|\b(?:well|hmm)?\W{0,5}do i\?",
    r"\bcould (?:that|this|it) (?:really |actually )?be\b",
    r"\b(?:not|isn't|aren't|n't) (?:so |entirely |quite |really |completely |fully |totally |100% |very |too )?"
    r"(?:sure|certain|convinced|confident|trust|believe|comfortable)\b",
    r"\b(?:unsure|uncertain|unconvinced)\b",
    r"\b(?:does|do|did)(?:n't| not) (?:\w+ )?(?:look|seem|feel|sound|add up)(?: \w+)? ?(?:right|correct|plausible|up)?",
    r"\b(?:seems?|looks?|feels?|sounds?) (?:a (?:bit|little) |rather |quite |very |kind of |suspiciously |way |somewhat )?"
    r"(?:off|wrong|odd|strange|too|low|high|small|large|big|suspicious|unlikely|weird|surprising)\b",
    r"\b(?:python|the (?:code|program|computer|interpreter|script|output|machine)|it|sympy)\W+(?:\w+\W+){0,2}?"
    r"(?:might|may|could|can|gives?|gave|made|makes?|has|have|got)\W+(?:\w+\W+){0,3}?(?:wrong|mistaken?|errors?|miscount\w*|missed|off|incorrect)\b",
    r"[对正][确]?吗|是吗|真的|不太?确定|怀疑|不(?:太|敢|能)?(?:完全)?相信|可信|可靠吗|奇怪|有点(?:少|多|大|小)|(?:太|偏|过)(?:少|多|大|小)"
    r"|会不会.{0,10}(?:错|漏|偏|问题)|是不是.{0,10}(?:错|漏)|不对",
)
_LEAD = re.compile(
    r"^\W*(?:wait|hmm+|hold on|but|actually|really|alternatively|let me see|等等|等一下|嗯|不过)(?:\b|(?=[，,。]))",
    re.IGNORECASE,
)
# --- what is no fault -----------------------------------------------------------------------------------------------
_CODE = _any(
    r"\b(?:python|code|program|script|sympy|interpreter|run|tool|brute[- ]force)\b", r"代码|程序|编程"
)
_WITH_CODE = _any(
    r"\b(?:with|using|by|in|via|through) (?:\w+ ){0,4}?(?:python|code|programs?|scripts?|sympy|sieve|brute[- ]force|simulation|function)\b",
    r"\b(?:run|write|another|different|second|separate|quick) (?:\w+ ){0,2}?(?:code|program|script|check in python|implementation)\b",
    r"用.{0,8}(?:代码|程序|Python|sympy|函数)|另一(?:个|种|段)|换一?(?:个|种)",
)
_LOGIC = _any(
    r"\b(?:logic|loops?|conditions?|ranges?|off[- ]by[- ]one|edge cases?|bugs?|indent\w*|syntax|parenthes[ie]s|(?:read|re-?read|understood"
    r"|understand|interpret|model)\w*|the (?:question|problem|code|program|function|formula|definition|wording|statement|approach|setup)"
    r"|assumptions?|inclusive|exclusive|ordered|unordered)\b",
    r"逻辑|题目|题意|题干|问题要求|语法|括号|代码|循环|条件|边界|范围",
)
_DECLINED = _any(
    r"\b(?:instead of|rather than|tedious|avoid|don't|do not|not (?:going|worth|want|practical|feasible|easy)|no (?:need|reason|point)|needn't"
    r"|too (?:long|many|slow|big|large|much)|would (?:take|be)|error[- ]prone|hard|painful|messy|impractical)\b"
    r"(?:(?!\bbut\b).){0,60}\b(?:by hand|manually|verify|double-check)",
    r"\b(?:by hand|manually)\b.{0,20}\b(?:is|are|would be|gets?|seems?) (?:\w+ )?(?:tedious|error[- ]prone|hard|painful|messy|slow|long|too)",
    r"\b(?:manually|by hand)\b.{0,12}\bbut (?:there|that|it|this|the)\b",
    r"(?:不用|不必|不需要|无需|没有?必要|避免|而不是).{0,20}(?:手算|手动|手工|逐|验|检|核)|手算.{0,6}(?:麻烦|繁琐|太)",
)
_ESTIMATE = _any(
    r"~\s?\d",
    r"\b(?:roughly|approximately|(?<!\\)approx|estimate\w*|ballpark|order of|(?:about|around) \d[\d,]*\b(?!\.\d)|close to|at most|crude(?:ly)?)\b",
    r"大约|大概|估计|估算|左右",
)

_RECALLS = _any(
    r"\bwell[- ]known\b|\b(?:which|as) (?:i|we|everyone) know|\b(?:recall|remember)\b(?! (?:doing|computing))|\b(?:it is|it's|as is|are) (?:well )?known\b|\b(?:i|we) know (?:that|the)\b",
    r"\bworks? (?:like this|as follows)\b|\bfor (?:example|instance)\b|\be\.g\.",
    r"众所周知|我们知道|常见的|已知",
)

_PROCEEDS = _any(
    r"\b(?:now|next|second|third|remaining|other|another|also|still|rest|similarly|finally|continue|moving on|as for|for the|for [A-Z]|turn to)\b",
    r"接下来|下面|第[二三四]|然后|剩|另一|现在|继续|最后",
)

_END = re.compile(r"[.!?…][\"')\]*]*\s+|[。！？]\s*|\n\s*")


@lru_cache(
    maxsize=20_000
)  # a growing text is looked through many times, and most of its sentences are the same
def _says(pattern: re.Pattern[str], text: str) -> bool:
    return pattern.search(text) is not None


@dataclass(frozen=True)
class Sentence:
    """A sentence of a stretch of prose, and what it says."""

    start: int
    end: int
    text: str

    @cached_property
    def declines(self) -> bool:
        """Turns work by hand, or a check, down."""
        return _says(_DECLINED, self.text)

    @cached_property
    def by_hand(self) -> bool:
        return _says(_BY_HAND, self.text) and not self.declines

    @cached_property
    def manual(self) -> bool:
        """Announces work by hand."""
        return self.by_hand or (not self.declines and not self.names_code and _says(_STEPWISE, self.text))

    @cached_property
    def intent(self) -> bool:
        """Announces a calculation, without code."""
        return _says(_INTENT, self.text) and not self.names_code and not self.declines

    @cached_property
    def doubt(self) -> bool:
        """Questions a result, or announces to check it. What questions the logic, or turns to other code, does not."""
        if self.declines or not (_says(_CHECK, self.text) or _says(_QUESTION, self.text)):
            return False
        return self.by_hand or not (self.of_logic or self.with_code)

    @cached_property
    def questions(self) -> bool:
        """A doubt for which no number has to follow."""
        return self.doubt and _says(_QUESTION, self.text)

    @cached_property
    def of_logic(self) -> bool:
        """Is about a program's logic, or the wording of the problem."""
        return _says(_LOGIC, self.text)

    @cached_property
    def with_code(self) -> bool:
        return _says(_WITH_CODE, self.text)

    @cached_property
    def names_code(self) -> bool:
        return _says(_CODE, self.text)

    @cached_property
    def estimates(self) -> bool:
        return _says(_ESTIMATE, self.text)

    @cached_property
    def recalls(self) -> bool:
        """States what everybody knows."""
        return _says(_RECALLS, self.text) and not self.doubt

    @property
    def short(self) -> bool:
        return len(self.text) <= 25

    @cached_property
    def numeric(self) -> bool:
        return any(letter.isdigit() for letter in self.text)

    @cached_property
    def proceeds(self) -> bool:
        """Turns to something else."""
        return _says(_PROCEEDS, self.text)

    @cached_property
    def leads(self) -> bool:
        """Belongs to what comes next: "Wait." or "Is that right?"."""
        return len(self.text) < 80 and (self.doubt or _says(_LEAD, self.text))


def sentences(text: str) -> list[Sentence]:
    """In order, without gaps but for blank ones. The last one may still be growing."""
    ends = [match.end() for match in _END.finditer(text)]
    bounds = zip([0, *ends], [*ends, len(text)], strict=True)
    return [Sentence(a, b, text[a:b]) for a, b in bounds if text[a:b].strip()]


def place(position: int, among: list[Sentence]) -> int:
    """Index of the sentence that holds the position."""
    return max(bisect_right(among, position, key=lambda s: s.start) - 1, 0)
