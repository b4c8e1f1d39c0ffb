"""Runs notebooks as `nbs/site/_run.py` does, in kernels that have torch already.

For each line of standard input, a notebook and a folder in JSON, it answers with a
line, also in JSON: what went wrong, or nothing. It imports what takes long, and then it
forks. A start of Python and of torch would take four seconds of each notebook.
"""
import asyncio
import json
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path
from tempfile import TemporaryFile

INLINE = "module://matplotlib_inline.backend_inline"
os.environ["MPLBACKEND"] = INLINE  # as kernels do, before Matplotlib asks
SLOW = ["accelerate", "ipykernel.kernelapp", "matplotlib.figure", "nbclient",
        "torch._dynamo", "torchdiffeq"]  # an optimiser asks for the former
HERE = sys.path.pop(0)  # notebooks do not see the tests
RUN = runpy.run_path(str(Path(HERE).parent / "nbs" / "site" / "_run.py"))["run"]
SECONDS = 1200  # for a notebook


class Forked:
    "A process, with what jupyter_client asks of a `Popen`."
    stdin = stdout = stderr = None

    def __init__(self, pid): self.pid, self.returncode = pid, None

    def poll(self, options=os.WNOHANG):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid: self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self): return self.poll(0)

    def send_signal(self, number): os.kill(self.pid, number)

    def terminate(self): self.send_signal(signal.SIGTERM)

    def kill(self): self.send_signal(signal.SIGKILL)


def fork(work):
    "Does this in a process of its own, which ends with it."
    pid = os.fork()
    if pid: return Forked(pid)
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def launch_kernel(command, env, cwd, **_):
    "In place of jupyter_client's: `python -m ipykernel_launcher ...` without a start."
    parent = str(os.getpid())

    def kernel():
        os.chdir(cwd)
        os.environ.update(env, JPY_PARENT_PID=parent)
        asyncio.set_event_loop(asyncio.new_event_loop())  # not the runner's
        _, _, module, *sys.argv[1:] = command
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    process = fork(kernel)
    os.setpgid(process.pid, process.pid)  # jupyter_client interrupts a whole group
    return process


def trouble(path, out):
    "What went wrong in a notebook, if anything."
    def notebook():
        with open(os.devnull, "rb") as nothing: os.dup2(nothing.fileno(), 0)
        for output in 1, 2: os.dup2(said.fileno(), output)
        os.chdir(out)
        signal.alarm(SECONDS)
        RUN(path, out / path.name, draft=True)

    with TemporaryFile("w+", encoding="utf-8") as said:
        code = fork(notebook).wait()
        said.seek(0)
        return f"{said.read()[-12_000:]}\nexit status {code}" if code else ""


for name in SLOW: __import__(name)
provisioner = sys.modules["jupyter_client.provisioning.local_provisioner"]
provisioner.launch_kernel = launch_kernel
for line in sys.stdin:
    path, out = map(Path, json.loads(line))
    print(json.dumps(trouble(path, out)), flush=True)
