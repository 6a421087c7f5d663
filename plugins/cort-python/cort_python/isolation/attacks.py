"""Thirty things that code must not get away with, each a cell of Python.

A cell that is refused ends with an exception, or with its process. One that succeeds says so in its last line,
``got through``; where that can be seen from outside, too, ``harm`` looks.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

THROUGH = "got through"


@dataclass
class Scene:
    """What the attacks aim at. Cells see each public field as a variable of its name."""

    outside: str
    """A folder that the owner may write, with the file ``secret``."""
    secret: str
    """What is in that file, and in the owner's environment under ``CORT_SECRET``."""
    owner: int
    """Process number of whoever runs this."""
    path: str
    """A Unix socket of the owner's, of datagrams."""
    abstract: str
    """The same without a path, for streams."""
    port: int = 0
    """A TCP and a UDP port of the owner's that answers."""
    bystander: int = 0
    """A process of the owner's."""
    sibling: int = 0
    """Process number of another session's kernel."""
    sibling_folder: str = ""
    heard: int = 0
    """Messages and connections that have reached the owner's sockets."""
    _process: subprocess.Popen[bytes] | None = None

    def set_up(self) -> None:
        """Put everything where the next attack looks for it."""
        if not _runs(self.bystander):
            self.end_bystander()
            self._process = subprocess.Popen(["sleep", "600"])
            self.bystander = self._process.pid
        file = Path(self.outside, "secret")
        for other in Path(self.outside).iterdir():
            if other.name not in ("secret", "s"):
                other.unlink()
        file.touch()
        file.chmod(0o600)
        file.write_text(self.secret)
        self.heard = 0

    def end_bystander(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def harm(self) -> str:
        """What has become of it; empty where all is well."""
        file = Path(self.outside, "secret")
        if not file.exists() or file.read_text() != self.secret:
            return "a file of the owner's has changed"
        if file.stat().st_mode & 0o777 != 0o600:
            return "a file of the owner's has other permissions"
        if len(os.listdir(self.outside)) != 2:  # the secret and the socket
            return "there is a new file outside"
        if self.heard:
            return "the owner's sockets have heard from it"
        for what, number in (("the owner's process", self.bystander), ("another session", self.sibling)):
            if not _runs(number):
                return f"{what} has ended"
        return ""


def _runs(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZT"
    except OSError:
        return False


@dataclass(frozen=True)
class Attack:
    name: str
    code: str
    layers: str
    """Those that stand in its way, the first of them first."""
    at_end: Callable[[Scene], str] | None = None
    """Looks once the session has ended."""


_LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_FAIL = "if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"


def _daemon_left(scene: Scene) -> str:
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", b"86399.5"] and _runs(int(entry)):
            return "a process outlived its session"
    return ""


FILES = (
    Attack(
        "write a new file outside", "open(outside + '/new', 'w').write('x')", "landlock namespaces privileges"
    ),
    Attack(
        "overwrite a file outside",
        "open(outside + '/secret', 'w').write('x')",
        "landlock namespaces privileges",
    ),
    Attack(
        "delete a file outside", "import os\nos.remove(outside + '/secret')", "landlock namespaces privileges"
    ),
    Attack(
        "change the permissions of a file outside",
        "import os\nos.chmod(outside + '/secret', 0o666)",
        "privileges namespaces",
    ),
    Attack("read a private file", "assert open(outside + '/secret').read() == secret", "landlock privileges"),
    Attack(
        "read a private file through a link",
        "import os\nos.symlink(outside, 'way')\nassert open('way/secret').read() == secret",
        "landlock privileges",
    ),
    Attack(
        "write into another session's folder",
        "open(sibling_folder + '/left-for-you', 'w').write('x')",
        "landlock privileges",
    ),
    Attack("read the password hashes", "assert open('/etc/shadow').read()", "landlock privileges"),
)

NETWORK = (
    Attack(
        "connect to a TCP port",
        "import socket\nsocket.create_connection(('127.0.0.1', port), timeout=3)",
        "seccomp landlock namespaces",
    ),
    Attack(
        "send a UDP datagram",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
        "seccomp namespaces",
    ),
    Attack(
        "connect to another session's kernel",
        "import os, socket\nsocket.socket(socket.AF_UNIX).connect(os.path.dirname(sibling_folder) + '/k-1')",
        "seccomp privileges",
    ),
    Attack(
        "write to a Unix socket",
        "import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', path)",
        "seccomp privileges",
    ),
    Attack(
        "write to a Unix socket from one end of a pair",
        "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', path)",
        "seccomp privileges",
    ),
    Attack(
        "connect to an abstract Unix socket",
        "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0' + abstract)",
        "seccomp landlock namespaces",
    ),
    Attack(
        "make an asynchronous ring, which filters do not see into",
        _LIBC + "result = libc.syscall(425, 8, ctypes.create_string_buffer(120))\n" + _FAIL,
        "seccomp",
    ),
)

PROCESSES = (
    Attack("end the template", "import os\nos.kill(os.getppid(), 9)", "landlock privileges seccomp"),
    Attack("end the owner's process", "import os\nos.kill(bystander, 9)", "landlock privileges seccomp"),
    Attack("end another session", "import os\nos.kill(sibling, 9)", "landlock privileges seccomp"),
    Attack(
        "put limits on the owner's process",
        "import resource\nresource.prlimit(bystander, resource.RLIMIT_NOFILE, (16, 4096))",
        "seccomp privileges",
    ),
    Attack(
        "trace the owner's process",
        _LIBC + "result = libc.ptrace(16, bystander, 0, 0)\n" + _FAIL,
        "seccomp landlock privileges",
    ),
    Attack(
        "read the owner's environment and memory",
        "import os\nopened = []\n"
        "for number in (owner, bystander, os.getppid()):\n"
        "    for name in ('environ', 'mem', 'maps'):\n"
        "        try: opened.append(open(f'/proc/{number}/{name}', 'rb').read(1))\n"
        "        except OSError as error: last = error\n"
        "if not opened: raise last",
        "landlock privileges",
    ),
    Attack(
        "find the owner's secrets in its own environment",
        "import os\nseen = open('/proc/self/environ', 'rb').read() + str(os.environ).encode()\n"
        "if secret.encode() not in seen: raise LookupError('they are not there')",
        "",
    ),
    Attack(
        "reach the template through an open descriptor",
        "import os, socket, stat\n"
        'request = b\'{"op": "signal", "id": 1, "signal": 9}\'\n'
        "reached = []\n"
        "for number in map(int, os.listdir('/proc/self/fd')):\n"
        "    try:\n"
        "        mode = os.fstat(number).st_mode\n"
        "        if stat.S_ISFIFO(mode): reached.append(os.write(number, b'\\x0f'))  # SIGTERM, to a loop that waits\n"
        "        if stat.S_ISSOCK(mode):\n"
        "            s = socket.socket(fileno=os.dup(number))\n"
        "            if s.type == socket.SOCK_SEQPACKET: reached.append(s.send(request))\n"
        "    except OSError: pass\n"
        "if not reached: raise LookupError('no descriptor leads there')",
        "",
    ),
    Attack(
        "start processes without end",
        "import os, time\nstarted = 0\n"
        "for _ in range(500):\n    if os.fork() == 0:\n        time.sleep(5); os._exit(0)\n    started += 1",
        "rlimits privileges cgroups",
    ),
    Attack(
        "leave a process running",
        "import subprocess\n"
        "subprocess.Popen('setsid sleep 86399.5 &', shell=True, start_new_session=True)\nraise SystemExit",
        "",
        at_end=_daemon_left,
    ),
)

RESOURCES = (
    Attack("take all memory", "hoard = [bytearray(2**26) for _ in range(64)]", "rlimits cgroups"),
    Attack(
        "keep memory where its limit does not count it",
        "import os\nfor n in range(64):\n    os.ftruncate(os.memfd_create('hoard'), 2**28)",
        "seccomp",
    ),
    Attack(
        "write a file without end",
        "import os\nos.posix_fallocate(os.open('big', os.O_CREAT | os.O_WRONLY), 0, 2**30)",
        "rlimits",
    ),
    Attack(
        "write files without end",
        "import os\nfor n in range(40):\n    os.posix_fallocate(os.open(f'big{n}', os.O_CREAT | os.O_WRONLY), 0, 2**26)",
        "namespaces",
    ),
)

RIGHTS = (
    Attack(
        "become root in a name space of its own, and mount",
        "import ctypes, os\nlibc = ctypes.CDLL(None)\n"
        "if (child := os.fork()) == 0:  # of one thread, as it has to be\n"
        "    refused = libc.unshare(0x10020000) or libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)\n"
        "    os._exit(1 if refused else 0)\n"
        "if os.waitpid(child, 0)[1]: raise PermissionError('no such rights')",
        "seccomp",
    ),
)

AIMS = {
    "files": FILES,
    "network": NETWORK,
    "processes": PROCESSES,
    "memory and disk": RESOURCES,
    "rights": RIGHTS,
}
ATTACKS = tuple(attack for attacks in AIMS.values() for attack in attacks)
