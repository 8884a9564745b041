"""Where the compiled kernels come from, and what happens where they are not available.

Most tests replace the compiler by a shell script, so that they need none and take no time.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from modelnative.errors import UserError
from modelnative.native import build

pytestmark = pytest.mark.skipif(os.name != "posix", reason="compilers are shell scripts here")
COMPILER = next((found for name in build.COMPILERS if (found := shutil.which(name))), None)
needs_a_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")

# Writes its arguments to a log and copies a library to the path after -o.
STUB = """#!/bin/sh
if [ "$1" = "--version" ]; then echo "stub {version}"; exit 0; fi
echo "$@" >> {log}
for target; do :; done
{action}
"""


@pytest.fixture(scope="module")
def prebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some library that loads."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    source = tmp_path_factory.mktemp("prebuilt") / "answer.cpp"
    source.write_text('extern "C" int answer() { return 42; }\n')
    subprocess.run([COMPILER, "-shared", "-fPIC", str(source), "-o", str(source.with_suffix(".so"))], check=True)
    return source.with_suffix(".so")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty caches, and nothing remembered from earlier calls."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "user_cache_dir", lambda name, appauthor: str(tmp_path / "cache" / name))
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(build, "kernels", build.kernels.__wrapped__)
    monkeypatch.delenv(build.CHOICE, raising=False)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stub:
    """No compilers but those that the test writes."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(build, "COMPILERS", ("one", "two"))
    return Stub(tmp_path)


class Stub:
    """Writes compilers as shell scripts into a folder that is on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.log = folder / "bin", folder / "log"
        self.bin.mkdir()

    def write(self, name: str, action: str, version: str = "1") -> Path:
        """A compiler that runs `action`, with the path of the library to write in $target."""
        path = self.bin / name
        path.write_text(STUB.format(version=version, log=self.log, action=action))
        path.chmod(0o755)
        return path

    @property
    def calls(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "modelnative").glob("*.so"))


@needs_a_compiler
@pytest.mark.slow
def test_the_real_kernels_are_compiled_once(tmp_path: Path) -> None:
    first = build.library()
    assert first is not None
    assert first.lanes() > 0
    (made,) = cached(tmp_path)
    before = made.stat().st_mtime_ns
    assert build.library() is not None
    assert made.stat().st_mtime_ns == before
    assert build.describe() == "native"


def test_only_the_user_can_write_to_the_cache(tmp_path: Path, stub: Stub, prebuilt: Path) -> None:
    stub.write("one", f'cp {prebuilt} "$target"')
    before = os.umask(0)
    try:
        assert build.library() is not None
    finally:
        os.umask(before)
    folder = tmp_path / "cache" / "modelnative"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.suffix for path in sorted(folder.iterdir())] in ([".sha256", ".so"], [".sha256", ".so", ".lock"]), (
        "nothing half written"
    )


def refuse_mode(folder: Path, _: pytest.MonkeyPatch) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o755)


def refuse_link(folder: Path, _: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir()
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def refuse_file(folder: Path, _: pytest.MonkeyPatch) -> None:
    folder.parent.write_text("a file where a folder is expected")


@pytest.mark.parametrize("spoil", [refuse_mode, refuse_link, refuse_file])
def test_a_cache_that_is_not_private_is_not_used(
    tmp_path: Path, stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch, spoil: object
) -> None:
    stub.write("one", f'cp {prebuilt} "$target"')
    assert callable(spoil)
    spoil(tmp_path / "cache" / "modelnative", monkeypatch)
    assert build.library() is not None
    assert cached(tmp_path) == []
    temporary = tmp_path / f"modelnative-{os.getuid()}"
    assert len(list(temporary.glob("kernels-*.so"))) == 1
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


def test_folders_of_another_user_are_refused(
    tmp_path: Path, stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.write("one", f'cp {prebuilt} "$target"')
    for folder in (tmp_path / "cache" / "modelnative", tmp_path / f"modelnative-{os.getuid() + 1}"):
        folder.mkdir(parents=True, mode=0o700)  # by us; below, we are somebody else
    monkeypatch.setattr(build, "_user", lambda: os.getuid() + 1)
    assert build.library() is None
    assert build.describe().count("not private; expected a folder that you own with mode 0700") == 2
    assert stub.calls == 0


def test_processes_that_start_at_once_compile_once(tmp_path: Path, stub: Stub, prebuilt: Path) -> None:
    stub.write("one", f'sleep 1; cp {prebuilt} "$target"')
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['describe']())"
    command = [sys.executable, "-c", code, build.__file__]
    environment = {**os.environ, "CXX": "one", "HOME": str(tmp_path)}
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    assert [process.communicate(timeout=60)[0] for process in started] == ["native\n"] * 8
    assert stub.calls == 1


@pytest.mark.parametrize("change", ["version", "time", "path", "source", "flags", "processor"])
def test_a_change_of_compiler_source_or_processor_compiles_again(
    tmp_path: Path, stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    action = f'cp {prebuilt} "$target"'
    compiler = stub.write("one", action)
    os.utime(compiler, ns=(0, 0))
    source = shutil.copytree(build.FOLDER, tmp_path / "kernels")
    monkeypatch.setattr(build, "FOLDER", source)
    assert build.library() is not None
    if change == "version":
        stub.write("one", action, version="2")
        os.utime(compiler, ns=(0, 0))
    elif change == "time":
        os.utime(compiler, ns=(0, 1))
    elif change == "path":
        os.utime(compiler.rename(compiler.with_name("two")), ns=(0, 0))
    elif change == "source":
        (source / "vectors.h").write_text("// other")
    elif change == "flags":
        monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    else:
        monkeypatch.setattr(build, "_processor", lambda: "another processor")
    assert build.library() is not None
    assert stub.calls == len(cached(tmp_path)) == 2


@pytest.mark.parametrize("first", ["echo 'out of order' >&2; exit 1", "exit 0", 'echo garbage > "$target"'])
def test_the_next_compiler_is_tried_when_one_fails(tmp_path: Path, stub: Stub, prebuilt: Path, first: str) -> None:
    stub.write("one", first)
    stub.write("two", f'cp {prebuilt} "$target"')
    assert build.library() is not None
    assert build.describe() == "native"


def test_a_compiler_that_hangs_is_stopped(stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "TIME_LIMIT", 0.2)
    stub.write("one", "exec sleep 60")
    assert build.describe() == f"torch ({stub.bin / 'one'} did not finish within 0.2 s)"
    assert stub.calls == 1, "other flags are not tried"
    stub.write("two", f'cp {prebuilt} "$target"')
    assert build.library() is not None


def test_flags_that_a_compiler_does_not_know_are_left_out(stub: Stub, prebuilt: Path) -> None:
    stub.write("one", f'case "$*" in *=native*) exit 1;; esac; cp {prebuilt} "$target"')
    assert build.library() is not None
    assert stub.calls == 3


def test_the_compiler_of_the_user_comes_first(stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.write("one", "exit 1")
    mine = stub.write("mine", f'[ "$1" = "--fast" ] && cp {prebuilt} "$target"')
    mine.write_text(mine.read_text().replace('"$1" = "--version"', '"$2" = "--version"'))
    monkeypatch.setenv("CXX", "mine --fast")
    assert build.library() is not None
    assert stub.calls == 1


def test_a_damaged_library_is_compiled_again(
    tmp_path: Path, stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.write("one", f'cp {prebuilt} "$target"')
    monkeypatch.setattr(build, "_file_name", lambda source, compiler: "kernels.so")
    folder = tmp_path / "cache" / "modelnative"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "kernels.so").write_bytes(b"garbage")
    loaded = build.library()
    assert loaded is not None
    assert loaded.answer() == 42
    assert (folder / "kernels.so").read_bytes() == prebuilt.read_bytes()
    assert stub.calls == 1


def test_a_truncated_library_is_compiled_again(tmp_path: Path, stub: Stub, prebuilt: Path) -> None:
    """Loading half a library ends the process with SIGBUS, so its checksum is compared first."""
    stub.write("one", f'cp {prebuilt} "$target"')
    assert build.library() is not None
    (made,) = cached(tmp_path)
    made.unlink()  # the process still has the old file open
    made.write_bytes(prebuilt.read_bytes()[: prebuilt.stat().st_size // 2])
    loaded = build.library()
    assert loaded is not None
    assert made.read_bytes() == prebuilt.read_bytes()
    assert stub.calls == 2


def test_the_next_folder_is_used_where_nothing_can_be_loaded(
    tmp_path: Path, stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a home that is mounted `noexec`; the library there is compiled once and not at every start."""
    load = build.ctypes.CDLL

    def refuse(path: str) -> object:
        if Path(path).is_relative_to(tmp_path / "cache"):
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(build.ctypes, "CDLL", refuse)
    stub.write("one", f'cp {prebuilt} "$target"')
    for _ in range(3):
        found = build.kernels()
        assert found.path is not None
        assert found.path.parent == tmp_path / f"modelnative-{os.getuid()}"
        assert [reason.rpartition(": ")[2] for reason in found.reasons] == ["failed to map segment from shared object"]
    assert stub.calls == 2


def test_the_next_folder_is_used_where_the_disk_is_full(tmp_path: Path, stub: Stub, prebuilt: Path) -> None:
    full = f'case "$target" in {tmp_path}/cache/*) ln -s /dev/full "$target"; exit 1;; esac'
    stub.write("one", f'{full}; cp {prebuilt} "$target"')
    found = build.kernels()
    assert found.library is not None
    assert found.reasons == (f"{tmp_path / 'cache' / 'modelnative'}: No space left on device",)


def test_without_a_home_only_the_temporary_folder_is_used(
    tmp_path: Path, stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "user_cache_dir", lambda name, appauthor: "~/.cache/modelnative")
    stub.write("one", f'cp {prebuilt} "$target"')
    assert build.library() is not None
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o772])
@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_that_others_can_replace_is_refused(
    tmp_path: Path, stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch, mode: int, linked: bool
) -> None:
    """Our own folder with mode 0700 is no protection where others can rename it, or a parent, and put theirs there."""
    stub.write("one", f'cp {prebuilt} "$target"')
    inside, path = tmp_path / "outer" / "inner", tmp_path / "outer"
    inside.mkdir(parents=True)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(inside)
    monkeypatch.setattr(build, "cache_folders", lambda: [path / "cache" / "modelnative"])
    inside.parent.chmod(mode)
    assert build.library() is None
    assert f"because group or others can write to {tmp_path / 'outer'}; expected: chmod go-w" in build.describe()
    assert stub.calls == 0
    inside.parent.chmod(mode | stat.S_ISVTX)
    assert build.library() is not None
    inside.parent.chmod(0o755)
    assert build.library() is not None


def test_a_folder_inside_that_of_another_user_is_refused(
    tmp_path: Path, stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.write("one", f'cp {prebuilt} "$target"')
    look = Path.stat

    def shown(path: Path, **options: bool) -> os.stat_result:
        found = look(path, **options)
        owned = (*found[:4], 12345, *found[5:]) if path == tmp_path else found
        return os.stat_result(owned)

    monkeypatch.setattr(Path, "stat", shown)
    assert build.library() is None
    assert build.describe().count(f"other users can replace it, because another user owns {tmp_path}") == 2


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022])
def test_parents_that_are_missing_are_made_for_the_user_alone(
    tmp_path: Path, stub: Stub, prebuilt: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    stub.write("one", f'cp {prebuilt} "$target"')
    monkeypatch.setattr(build, "cache_folders", lambda: [tmp_path / "a" / "b" / "modelnative"])
    before = os.umask(mask)
    try:
        assert build.library() is not None, build.describe()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_without_a_compiler_torch_is_used(stub: Stub) -> None:
    assert build.library() is None
    assert build.describe() == (
        "torch (no C++ compiler is installed (one, two); with one, training is about twice as fast)"
    )


def test_the_reason_is_kept(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.write("one", "echo 'out of order' >&2; exit 1")
    stub.write("two", "exit 3")
    reason = f"{stub.bin / 'one'} failed: out of order; {stub.bin / 'two'} failed: exit status 3"
    assert build.describe() == f"torch ({reason})"
    monkeypatch.setenv(build.CHOICE, "native")
    with pytest.raises(
        UserError, match=r"MODELNATIVE_KERNELS: 'native' is not possible here: .*out of order"
    ) as raised:
        build.library()
    assert reason in str(raised.value)


def test_torch_can_be_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.CHOICE, "torch")
    assert build.library() is None
    assert build.describe() == "torch (MODELNATIVE_KERNELS=torch)"


def test_an_unknown_choice_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.CHOICE, "natve")
    with pytest.raises(UserError, match="'natve'; did you mean 'native'"):
        build.library()


def test_a_training_learns_with_torch_alone(tmp_path: Path) -> None:
    """The plain path from the command line; `test_kernels.py` compares what it computes."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "modelnative", "train", "--task", "worlds:Small", "--out", str(out)]
    command += ["--updates", "40", "--stages", "1", "--optimizer.learning-rate", "0.01"]
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1] / "helpers")])
    environment = {**os.environ, build.CHOICE: "torch", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    updates = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert updates[-1]["success"][0] > 0.8
