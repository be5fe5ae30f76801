"""The kinds of problem in the zoo.

A kind is a function of two random generators, of its shape and of its numbers, that
returns a `Problem`. Problems that share an architecture share a compiled program: what
the second generator draws goes into arrays.

Left out on purpose, so that tests may hold a predictor against them: scikit-learn's
digits, and Python's own sources as text.
"""

from metalr.meta.zoo import image_problems, table_problems, text_problems
from metalr.meta.zoo.problem import Maker

KINDS: dict[str, Maker] = {
    "perceptron": table_problems.perceptron,
    "deep": table_problems.deep,
    "linear": table_problems.linear,
    "teacher": table_problems.teacher,
    "convolution": image_problems.convolution,
    "autoencoder": image_problems.autoencoder,
    "language": text_problems.language,
    "factors": table_problems.factors,
    "quadratic": table_problems.quadratic,
    "tuned": text_problems.tuned,
}
