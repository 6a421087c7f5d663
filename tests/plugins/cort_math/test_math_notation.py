"""One answer in many notations, and what looks like it but is another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cort_math.comparison import correct
from cort_math.grading import quick
from cort_math.notation import comparable

RIGHT = r"""
\frac{448}{15625} ;; 0.028672
2516_8 ;; 2516
30 ;; 30\%
\frac14 ;; 25\%
5.4 \text{ cents} ;; 5.4¢
90^\circ ;; 90°
90^\circ ;; 90\degree
90^\circ ;; 90^o
36 ;; 36°
90^\circ ;; \ang{90}
15\mbox{ cm}^2 ;; 15 cm^2
36 ;; 36 dollars
27 ;; \text{27 miles}
27.0 ;; 27~\text{miles}
6+9i ;; 6 + 9\mathrm{i}
10,\!080 ;; 10 080
42 ;; 42,
\text{ellipse} ;; \text{an ellipse}
\begin{pmatrix} -7 \\ 16 \\ 5 \end{pmatrix} ;; (-7,16,5)
5 ;; \boxed 5
5 ;; \boxed{5}
5 ;; \fbox{5}
52_8 ;; 52_{\text{eight}}
\$32,\!348 ;; 32,348 \text{ dollars}
\$36 ;; 36 \text{ dollars per hour}
60 \text{ miles per hour} ;; 60 \text{ mph}
(5,\infty) ;; x>5
(5,\infty) ;; 5<x
(2,3) ;; 2<x<3
(-\infty,2)\cup(3,\infty) ;; x<2 \text{ or } x>3
(-\infty,2)\cup(3,\infty) ;; x<2 \text{ or } 3<x
(-\infty,2)\cup(3,\infty) ;; \{x \mid x<2 \text{ or } x>3\}
(-\infty,2)\cup(3,\infty) ;; \{x \in \mathbb{R} : x<2 \text{ or } x>3\}
(-\infty,2)\cup(3,\infty) ;; x<2 \lor x>3
(-\infty,2)\cup(3,\infty) ;; (-\infty,2), (3,\infty)
(0,9)\cup(9,36) ;; 0<x<9 \text{ or } 9<x<36
(1,2), (3,4) ;; (3,4), (1,2)
(1,2), (3,4) ;; (1,2) \text{ and } (3,4)
x \in [-2,7] ;; \{x : -2 \leq x \leq 7\}
(2,4) ;; \begin{pmatrix} 2 \\ 4 \end{pmatrix}
(2,4) ;; \left\langle 2, 4\right\rangle
\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix} ;; \begin{pmatrix} \frac15 \\[2pt] -\frac{18}5 \end{pmatrix}
\begin{pmatrix} 1/3 \\ 2 \end{pmatrix} ;; \begin{pmatrix} 0.333333 \\ 2 \end{pmatrix}
\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix} ;; \begin{bmatrix} -1 & 0 \\ 0 & -1 \end{bmatrix}
(6,31,-1) ;; (6, 31, -1)
\{1,-2\} ;; 1,-2
1,-2 ;; \{-2,1\}
1,-2 ;; x=1, x=-2
(2,4) ;; x=2 \text{ and } y=4
(2,4) ;; (x,y)=(2,4)
\pm\sqrt{3} ;; -\sqrt3, \sqrt3
\pm\sqrt{3} ;; \pm 1.7320508
10\% ;; 10
10\% ;; 0.1
10\% ;; \frac{1}{10}
10\% ;; 10 \text{ percent}
10\% ;; 10 percent
12.5 ;; 12.5\%
0.125 ;; 12.5\%
\frac18 ;; 12.5\%
3R^2 ;; 3R^{2}
3R^2 ;; V = 3R^2
x=5 ;; x=5
5 ;; X=5
y=2x+3 ;; y = 2x+3
\text{(B)} ;; \mathbf{(B)}\ 27
27 ;; \mathbf{(B)}\ 27
27 ;; \textbf{(B) } 27
27 ;; 27 \text{ in}
\text{ellipse} ;; an ellipse
\text{ellipse} ;; \text{Ellipse}
\sqrt{2} ;; 1.4142136
\frac{14}{3} ;; 4.66667
-\frac{1}{3} ;; -0.333333
1.25 ;; \frac54
3.21 ;; 3.210
6 - 5i ;; -5i+6
1+274i ;; 1 + 274\,\mathrm{i}
\frac{\sqrt{3}}{3} ;; \frac{\sqrt 3}{3}\text{ cm}
2k ;; 2k \text{ cm}
58,500 ;; 58 500
11{:}45 ;; 11:45
\text{13 cm} ;; 13
90^\circ ;; \frac{90}{1}^\circ
\cos x ;; \cos(x)
2xy ;; 2 xy
e^{x} ;; \mathrm{e}^x
7.5 \times 10^{3} ;; 7500
\frac{1}{3} ;; 33\frac{1}{3}\%
15 \text{ cm}^2 ;; 15 \text{ cm}^{2}
15 \text{ cm}^2 ;; 15 cm²
15 \text{ cm}^2 ;; 15 \text{ square centimeters}
"""
WRONG = r"""
.0000672 ;; 0.0000671
.0000672 ;; 0.000067
\frac{2}{1005} ;; 0.00199
\frac{448}{15625} ;; 0.0286721
\frac{20000}{\pi} ;; 6366.2
4210_{5} ;; 4210_6
2516_8 ;; 2516_{10}
(-\sqrt{3},\sqrt{3}) ;; \pm\sqrt{3}
(5,\infty) ;; 5, \infty
(2,4) ;; 2,4
5.4 \text{ cents} ;; 5.4 \text{ dollars}
90^\circ ;; 90 \text{ radians}
42 ;; 4 2
42 ;; 42!
3 ;; 3 \text{ is wrong}
10 ;; 10 \text{ or } 11
52_8 ;; 52_{\text{nine}}
60 \text{ miles per hour} ;; 60 \text{ miles per minute}
\$36 ;; 36 \text{ cents}
\$36 ;; 36¢
(2,3) ;; x>2 \text{ or } x<3
(-\infty,2)\cup(3,\infty) ;; x\le 2 \text{ or } x>3
(-\infty,2)\cup(3,\infty) ;; 1<x<2 \text{ or } x>3
(1,2), (3,4) ;; (1,2), (3,5)
(2,4) ;; \langle 4,2\rangle
\begin{pmatrix} 1/3 \\ 2 \end{pmatrix} ;; \begin{pmatrix} 0.333 \\ 2 \end{pmatrix}
(6,31,-1) ;; 6,31,-1
1,-2 ;; (1,-2)
(-2,1) ;; x=-2, x=1
(2,4) ;; x = 4, y = 2
\pm\sqrt{3} ;; (-\sqrt3, \sqrt3)
10\% ;; 1
10\% ;; 11\%
1 ;; 100\%
30 ;; 3000\%
3R^2 ;; 3r^2
\text{(B)} ;; \mathbf{(C)}\ 27
27 ;; \textbf{(B)}\ 28
\text{ellipse} ;; \text{a hyperbola}
\text{east} ;; \text{West}
1.41421 ;; \sqrt{2}
\sqrt{2} ;; 1.41
\frac{14}{3} ;; 4.667
-\frac{1}{3} ;; 0.333333
3.21 ;; 3.2100001
58,500 ;; 58, 500
11{:}45 \text{ am} ;; 11{:}45 \text{ pm}
90^\circ ;; 1.57 \text{ radians}
-90^\circ ;; 90^\circ
2 ;; 2 xy
2 ;; 2 x
2 ;; 2 \text{ or more}
-\infty ;; \infty
[0,1) ;; [0,1]
15 \text{ cm}^2 ;; 15 \text{ cm}
15 \text{ cm}^2 ;; 15 \text{ m}^2
"""


def pairs(table: str) -> list[tuple[str, str]]:
    rows = [row.split(" ;; ") for row in table.strip().splitlines()]
    return [(gold, answer) for gold, answer in rows]


def equal(gold: str, answer: str) -> bool:
    known = quick(gold, answer)
    return correct(gold, answer) if known is None else known


@pytest.mark.parametrize(("gold", "answer"), pairs(RIGHT))
def test_an_answer_may_be_written_in_another_notation(gold: str, answer: str) -> None:
    assert equal(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), pairs(WRONG))
def test_another_value_unit_base_or_kind_of_answer_is_wrong(gold: str, answer: str) -> None:
    assert not equal(gold, answer)


@given(
    st.text("0123456789.,;:\\\\{}()[]^_%$ abdegimnorstx<>=|°≤", max_size=40),
    st.sampled_from(["7", "52_8", "(1,2)"]),
)
def test_any_text_can_be_read(answer: str, gold: str) -> None:
    comparable(gold, answer)
    assert comparable(answer, answer) is not None


def test_an_answer_too_long_to_be_read_at_once_is_left_to_the_process_that_can_be_killed() -> None:
    assert quick("7", "7 " * 50_000) is None
