"""Errors of a model that quote what it said, as those of many clients do."""

from typing import Any


class Response:
    text = "the model said: HARM"

    def json(self) -> Any:
        return {"said": self.text}


class Quoting(Exception):
    def __init__(self, **held: Any) -> None:
        super().__init__("the model's answer is too long")
        self.__dict__.update(held)


class Silent(Exception):
    """One that shows nothing, but where it is represented."""

    def __str__(self) -> str:
        return "the model's answer is too long"


def chained() -> Exception:
    error = Quoting()
    error.__cause__ = ExceptionGroup("several", [ValueError("HARM")])
    return error


ERRORS = {
    "message": ValueError("could not parse 'HARM'"),
    "payload": Quoting(completion={"choices": ["HARM"]}),
    "arguments": Silent("HARM"),
    "response": Quoting(response=Response()),
    "held": Quoting(original_exception=Quoting(response=Response())),
    "cause": chained(),
}


def everything_of(error: BaseException | None, *before: BaseException) -> str:
    """All that somebody who gets an error could show of it."""
    if error is None or error in before:
        return ""
    held = [*vars(error).values(), *error.args, *(getattr(one, "text", "") for one in vars(error).values())]
    behind = [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    behind += [one for one in held if isinstance(one, BaseException)]
    beyond = "".join(everything_of(one, error, *before) for one in behind)
    return repr(error) + str(error) + repr(held) + beyond
