"""Answers of the proxy's own."""

from starlette.responses import JSONResponse, Response


class Refused(Exception):
    """Why a request gets no answer of an upstream's. What it says goes to the client: nothing of what is
    behind the proxy may stand in it."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = ""  # for the log
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        error = {"type": "shieldguard", "code": self.code, "message": str(self)}
        headers = {"x-shieldguard-refused": self.code, **self.headers}
        return JSONResponse({"type": "error", "error": error}, self.status, headers)
