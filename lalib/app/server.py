"""Voila for one notebook: on the loopback address only, every route closed to all who do not have the token.

Voila's own --token leaves static files open, among them pictures in the notebook's folder, and answers to any Host.
"""

import asyncio
import contextlib
from pathlib import Path

import tornado.ioloop
from jupyter_core.utils import ensure_async
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.web import HTTPError, RequestHandler
from traitlets.config import Config
from voila.app import Voila

# What a page and its first round take seconds for.
IMPORTS = "import jscatter, sklearn.manifold, torch._dynamo, lalib.app"
LATER = 20  # seconds after a page was opened, when it should have its processors for itself no more
IDLE = 600  # seconds after which a kernel that has neither a page nor anything to do is shut down
# The browser itself sends no request anywhere else, whatever the page or Voila's templates ask for.
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; base-uri 'self'; form-action 'self'"
POLICY += "; frame-ancestors 'none'"
TORNADO = {"allow_remote_access": False, "headers": {"Content-Security-Policy": POLICY}}
ALONE = {"open_browser": False, "log_level": "ERROR", "config_file_paths": [], "tornado_settings": TORNADO}
CLOSED = "This page needs its token: open the whole address that was printed when it was started.\n"
ANNOUNCED = "\nOpen this address in a browser on this machine; Ctrl-C ends it:\n\n"
ANNOUNCED += "    http://{0.ip}:{0.port}/?token={0.token}\n"


class TokenOnly(JupyterHandler):
    """Before anything else of a handler: 403 without the token or its cookie, and to a Host that is not this machine.

    Whoever comes with the token is given the cookie, which the page's further requests carry.
    """

    async def prepare(self) -> None:
        if not self.check_host() or await ensure_async(self.identity_provider.get_user(self)) is None:
            raise HTTPError(403)
        await ensure_async(super().prepare())
        _ = self.xsrf_token  # sets the cookie without which the page, when it closes, could not end its kernel

    def write_error(self, status_code: int, **error) -> None:
        """In words, instead of a page with links to more."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        RequestHandler.finish(self, CLOSED if status_code == 403 else f"{status_code} {self._reason}\n")


class Kernels(AsyncMappingKernelManager):
    """One kernel is ahead of the pages: it has done its imports when a page is opened. Unless nobody came for IDLE."""

    ahead: asyncio.Task | None = None

    async def start_kernel(self, **given) -> str:
        """The id of the kernel that is ahead, whom another one follows; of a new one where there is none."""
        ahead, self.ahead = self.ahead, None
        asyncio.get_running_loop().call_later(LATER, self.get_ahead)
        with contextlib.suppress(Exception):  # it could not be started
            if ahead is not None and (kernel := await ahead) in self and await ensure_async(self.is_alive(kernel)):
                return kernel
        return await super().start_kernel(**given)

    def get_ahead(self) -> None:
        """Start the kernel for the next page."""
        if self.ahead is None:
            self.ahead = asyncio.create_task(
                super().start_kernel(path="", extra_arguments=[f"--IPKernelApp.exec_lines={IMPORTS}"])
            )


class Server(Voila):
    """Voila with TokenOnly in front of every handler, future ones too. It prints its address once it listens."""

    def init_handlers(self) -> list:
        routes = super().init_handlers()
        return [(pattern, type(f"TokenOnly{of.__name__}", (TokenOnly, of), {}), *more) for pattern, of, *more in routes]

    def start(self) -> None:
        tornado.ioloop.IOLoop.current().add_callback(self.ready)
        super().start()

    async def ready(self) -> None:
        self.kernel_manager.get_ahead()
        print(ANNOUNCED.format(self), flush=True)


def server(notebook: Path, port: int, token: str) -> Server:
    """A Server for the notebook; port: the first to try. The user's configuration of Voila stays out of it."""
    config = Config(
        VoilaConfiguration={
            "file_allowlist": [],
            "allow_template_override": "NO",
            "allow_theme_override": "NO",
            "multi_kernel_manager_class": Kernels,
        },
        MappingKernelManager={"cull_idle_timeout": IDLE, "cull_interval": 60},
        KernelManager={"transport": "ipc"},  # not TCP, whose output channel every user of the machine may read
    )
    made = Server(ip="127.0.0.1", port=port, token=token, notebook_path=str(notebook), config=config, **ALONE)
    made.initialize([])
    return made
