"""The one family of errors meant for people: each names the cause and the cure.

What belongs here: the base class and nothing that needs another module. Subclasses that only one module raises live
beside
the code that raises them. What does not: programming errors (those stay ValueError, TypeError and their like).
"""


class SegmentsError(Exception):
    """Something the user can put right.

    Args:
        problem: what is wrong, in one sentence, with the numbers or names that show it. Never a secret.
        cure: what to do about it.
    """

    def __init__(self, problem: str, cure: str = "") -> None:
        self.problem = problem
        self.cure = cure
        super().__init__(f"{problem} {cure}".strip())


class MissingExtraError(SegmentsError):
    """A library of an extra is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra [{extra}], which is not installed.",
            f"python -m pip install 'segmentation-assets[{extra}]'",
        )
