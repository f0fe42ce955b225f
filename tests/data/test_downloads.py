"""The download scripts against a server of our own."""

import contextlib
import hashlib
import http.server
import io
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "data_scripts"
EVERY_SCRIPT = sorted(script.name for script in SCRIPTS.glob("download_*.sh"))
SHAPES = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 400
RECORDS = b"\x1f\x8b" + bytes(100)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, from any position on, and notes what was asked for."""

    def do_HEAD(self):
        self._answer(with_content=False)

    def do_GET(self):
        self._answer(with_content=True)

    def _answer(self, *, with_content):
        content = self.server.files.get(self.path)
        wanted = self.headers.get("Range")
        self.server.asked.append((self.command, self.path, wanted))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if wanted and self.server.resumes:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.end_headers()
        if with_content:
            with contextlib.suppress(OSError):
                self.wfile.write(content[start : len(content) - self.server.withheld])

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.files, running.asked, running.resumes, running.withheld = {}, [], True, 0
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def run(server, tmp_path):
    """Runs a script in a folder of its own: `run(name, *arguments, **environment)`."""

    def run(name, *arguments, **environment):
        return subprocess.run(
            ["bash", str(SCRIPTS / name), *map(str, arguments)],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "BASE_URL": server.url, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def shapes(server, tmp_path):
    """The place of the 3D Shapes file, which the server has."""
    server.files["/3dshapes.h5"] = SHAPES
    return tmp_path / "data" / "3dshapes.h5"


def _programs(folder, *without, **instead):
    """A folder of programs for PATH: all that there are but some, and others instead of some."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).iterdir() if Path(place).is_dir() else ():
            if program.name not in (*without, *instead) and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    for name, script in instead.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return str(folder)


DOWNLOADERS = [name for name in ("curl", "wget") if shutil.which(name)]


@pytest.fixture(scope="module", params=DOWNLOADERS)
def only_downloader(request, tmp_path_factory):
    """A PATH with just one of the programs that can download."""
    others = {"curl", "wget"} - {request.param}
    return _programs(tmp_path_factory.mktemp("programs") / "bin", *others)


def _tar(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _zip(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _files(folder):
    """All files below a folder: path and content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _error(ended):
    assert ended.returncode == 1
    assert "error: " in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("name", EVERY_SCRIPT)
def test_help_is_printed(run, tmp_path, name):
    ended = run(name, "--help")
    assert ended.returncode == 0
    assert f"bash data_scripts/{name}" in ended.stdout
    assert "DATA_DIR" in ended.stdout
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", EVERY_SCRIPT)
def test_wrong_arguments_are_errors(run, tmp_path, name):
    arguments = {"download_ravens.sh": [], "download_sketchy.sh": []}.get(name, ["nonsense"])
    for ended in (run(name, "--nonsense"), run(name, *arguments)):
        assert ended.returncode == 2
        assert "error: " in ended.stderr
        assert f"bash data_scripts/{name}" in ended.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize("begun", [0, 1000, len(SHAPES)])
def test_file_is_downloaded_and_resumed(run, server, shapes, only_downloader, resumes, begun):
    server.resumes = resumes
    shapes.parent.mkdir()
    Path(f"{shapes}.part").write_bytes(SHAPES[:begun])
    ended = run("download_shapes3d.sh", PATH=only_downloader)
    assert ended.returncode == 0, ended.stderr
    assert "next " in ended.stdout
    assert _files(shapes.parent) == {"3dshapes.h5": SHAPES}
    ranges = {wanted for method, _, wanted in server.asked if method == "GET"}
    assert (f"bytes={begun}-" in ranges) == (begun == 1000)


def test_existing_file_is_left_alone(run, server, shapes):
    shapes.parent.mkdir()
    shapes.write_text("mine")
    ended = run("download_shapes3d.sh")
    assert ended.returncode == 0
    assert "is there already" in ended.stdout
    assert shapes.read_text() == "mine"
    assert not server.asked


def test_part_of_another_file_is_replaced(run, shapes):
    shapes.parent.mkdir()
    Path(f"{shapes}.part").write_bytes(bytes(2 * len(SHAPES)))
    assert run("download_shapes3d.sh").returncode == 0
    assert _files(shapes.parent) == {"3dshapes.h5": SHAPES}


def test_broken_connection_is_an_error_and_can_be_resumed(run, server, shapes):
    server.withheld = 1000
    assert "goes on where it stopped" in _error(run("download_shapes3d.sh"))
    assert _files(shapes.parent) == {"3dshapes.h5.part": SHAPES[:-1000]}
    server.withheld = 0
    assert run("download_shapes3d.sh").returncode == 0
    assert _files(shapes.parent) == {"3dshapes.h5": SHAPES}


def test_checksum_decides_what_gets_the_name(run, shapes, tmp_path):
    sums = tmp_path / "sums"
    sums.write_text("0" * 64 + "  3dshapes.h5\n")
    assert "0000 is expected" in _error(run("download_shapes3d.sh", SHA256SUMS="sums"))
    assert not shapes.exists()
    sums.write_text("")
    assert "no line for 3dshapes.h5" in _error(run("download_shapes3d.sh", SHA256SUMS="sums"))
    assert not shapes.exists()
    sums.write_text(f"{hashlib.sha256(SHAPES).hexdigest()}  3dshapes.h5\n")
    assert run("download_shapes3d.sh", SHA256SUMS="sums").returncode == 0
    assert shapes.read_bytes() == SHAPES
    shapes.write_text("damaged since")
    assert "is expected" in _error(run("download_shapes3d.sh", SHA256SUMS="sums"))


def test_missing_list_of_checksums_is_an_error(run, server, shapes):
    assert "SHA256SUMS=FILE" in _error(run("download_shapes3d.sh", SHA256SUMS="missing"))
    assert not server.asked


def test_missing_remote_file_is_an_error(run, server, shapes, only_downloader):
    server.files.clear()
    ended = run("download_shapes3d.sh", PATH=only_downloader)
    assert "no file at http://127.0.0.1" in _error(ended)
    assert "404" in ended.stderr
    assert not _files(shapes.parent)


def test_missing_network_is_an_error(run, shapes, only_downloader):
    ended = run("download_shapes3d.sh", BASE_URL="http://127.0.0.1:1", PATH=only_downloader)
    assert "could not be reached" in _error(ended)
    assert "data/3dshapes.h5" in ended.stderr
    assert not _files(shapes.parent)


def test_missing_programs_are_an_error(run, shapes, tmp_path):
    programs = _programs(tmp_path / "bin", "curl", "wget")
    assert "Neither curl nor wget" in _error(run("download_shapes3d.sh", PATH=programs))


def test_full_disk_is_an_error_before_the_download(run, server, shapes, tmp_path):
    small = "echo head; echo /dev/some disk 100 50 50 50% /some where"
    ended = run("download_shapes3d.sh", PATH=_programs(tmp_path / "bin", df=small))
    assert "needs 102.4 kB, but data has only 51.2 kB free" in _error(ended)
    assert "DATA_DIR" in ended.stderr
    assert not _files(shapes.parent)
    assert {method for method, *_ in server.asked} == {"HEAD"}


def test_something_else_than_the_file_is_an_error(run, server, shapes):
    server.files["/3dshapes.h5"] = b"<html>Please log in</html>"
    assert "is no *.h5 file" in _error(run("download_shapes3d.sh"))
    assert not _files(shapes.parent)


def test_data_may_lie_elsewhere(run, shapes, tmp_path):
    assert run("download_shapes3d.sh", DATA_DIR="other place").returncode == 0
    assert _files(tmp_path) == {"other place/3dshapes.h5": SHAPES}


def test_multi_object_files_come_with_their_conversion(run, server, tmp_path):
    server.files |= {
        "/tetrominoes/tetrominoes_train.tfrecords": RECORDS,
        "/multi_dsprites/multi_dsprites_binarized.tfrecords": RECORDS,
        "/objects_room/objects_room_train.tfrecords": RECORDS,
        "/objects_room/objects_room_test_six_objects.tfrecords": RECORDS,
    }
    names = (
        "tetrominoes",
        "multi_dsprites_binarized",
        "objects_room_train",
        "objects_room_six_objects",
    )
    ended = run("download_multi_object.sh", *names)
    assert ended.returncode == 0, ended.stderr
    assert set(_files(tmp_path / "data" / "downloads")) == {
        Path(name).name for name in server.files
    }
    steps = [line.split() for line in ended.stdout.splitlines() if line.startswith("next ")]
    assert [" ".join(step[3:]) for step in steps] == [
        "--dataset tetrominoes --input data/downloads/tetrominoes_train.tfrecords "
        "--output data/tetrominoes.h5",
        "--dataset multi_dsprites --variant binarized "
        "--input data/downloads/multi_dsprites_binarized.tfrecords "
        "--output data/multi_dsprites_binarized.h5",
        "--dataset objects_room --variant train "
        "--input data/downloads/objects_room_train.tfrecords "
        "--output data/objects_room_train.h5",
        "--dataset objects_room --variant six_objects "
        "--input data/downloads/objects_room_test_six_objects.tfrecords "
        "--output data/objects_room_six_objects.h5",
    ]


CLEVR = {"CLEVR_v1.0/images/val/CLEVR_val_000000.png": b"pixels", "__MACOSX/x": b""}


def test_clevr_is_unpacked(run, server, tmp_path):
    server.files["/CLEVR_v1.0.zip"] = _zip(CLEVR)
    assert run("download_clevr.sh").returncode == 0
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"CLEVR_v1.0", "downloads"}
    image = tmp_path / "data/CLEVR_v1.0/images/val/CLEVR_val_000000.png"
    assert image.read_bytes() == b"pixels"
    shutil.rmtree(tmp_path / "data" / "downloads")
    assert run("download_clevr.sh").returncode == 0
    assert not (tmp_path / "data" / "downloads").exists()


def test_archive_of_something_else_is_an_error(run, server, tmp_path):
    server.files["/CLEVR_v1.0.zip"] = _zip({"other/file": b""})
    assert "nothing named CLEVR_v1.0" in _error(run("download_clevr.sh"))
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"downloads"}


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b.replace(b"pixels", b"pixies")])
def test_damaged_zip_is_an_error_that_leaves_no_folder(run, server, tmp_path, damage):
    server.files["/CLEVR_v1.0.zip"] = damage(_zip(CLEVR))
    assert "could not be unpacked" in _error(run("download_clevr.sh"))
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"downloads"}


def test_truncated_tar_is_an_error_that_leaves_no_folder(run, tmp_path):
    archive = _tar({"ravens_robot_data_train.h5": os.urandom(5000), "b": os.urandom(5000)})
    (tmp_path / "ravens.tar.gz").write_bytes(archive[:-1000])
    ended = run("download_ravens.sh", "ravens.tar.gz")
    assert "could not be unpacked" in _error(ended)
    assert not [*(tmp_path / "data").iterdir()]


def test_interrupted_unpacking_begins_again(run, server, tmp_path):
    server.files["/CLEVR_v1.0.zip"] = _zip(CLEVR)
    left = tmp_path / "data" / ".unpacking-CLEVR_v1.0.zip" / "CLEVR_v1.0" / "left over"
    left.parent.mkdir(parents=True)
    left.touch()
    assert run("download_clevr.sh").returncode == 0
    assert not left.parent.exists()
    assert not (tmp_path / "data" / "CLEVR_v1.0" / "left over").exists()


def test_clevrtex_parts_are_unpacked_side_by_side(run, server, tmp_path):
    for part in range(1, 6):
        image = f"clevrtex_full/{part}/CLEVRTEX_full_00{part}000.png"
        server.files[f"/clevrtex_full_part{part}.tar.gz"] = _tar({image: b"pixels"})
    server.files["/clevrtex_camo.tar.gz"] = _tar({"0/CLEVRTEX_camo_000000.png": b"pixels"})
    ended = run("download_clevrtex.sh", "full", "camo")
    assert ended.returncode == 0, ended.stderr
    assert set(_files(tmp_path / "data" / "clevrtex")) == {
        "clevrtex_camo/0/CLEVRTEX_camo_000000.png",
        *(
            f"clevrtex_full_part{part}/clevrtex_full/{part}/CLEVRTEX_full_00{part}000.png"
            for part in range(1, 6)
        ),
    }
    server.asked.clear()
    assert run("download_clevrtex.sh", "full", "camo").returncode == 0
    assert not server.asked


def test_other_clevrtex_variant_is_an_error(run, server, tmp_path):
    server.files["/clevrtex_camo.tar.gz"] = _tar({"0/CLEVRTEX_vbg_000000.png": b"pixels"})
    assert "no images of ClevrTex camo" in _error(run("download_clevrtex.sh", "camo"))
    assert not (tmp_path / "data" / "clevrtex").exists()


def test_ravens_files_are_found_in_any_folder(run, server, tmp_path):
    server.files["/share/train.zip"] = _zip({"a b/ravens_robot_data_train.h5": b"train"})
    (tmp_path / "my test.tar").write_bytes(_tar({"ravens_robot_data_test.h5": b"test"}))
    ended = run("download_ravens.sh", f"{server.url}/share/train.zip?download=1", "my test.tar")
    assert ended.returncode == 1  # the server knows no such path
    server.files["/share/train.zip?download=1"] = server.files["/share/train.zip"]
    ended = run("download_ravens.sh", f"{server.url}/share/train.zip?download=1", "my test.tar")
    assert ended.returncode == 0, ended.stderr
    assert _files(tmp_path / "data" / "ravens") == {
        "ravens_robot_data_train.h5": b"train",
        "ravens_robot_data_test.h5": b"test",
    }
    server.asked.clear()
    assert run("download_ravens.sh", f"{server.url}/another.zip").returncode == 0
    assert not server.asked


def test_processed_sketchy_is_unpacked_without_replacing(run, tmp_path):
    names = [f"x/processed/{split}/ep000000/a.png" for split in ("train", "valid", "test")]
    (tmp_path / "sketchy.tgz").write_bytes(_tar(dict.fromkeys(names, b"new")))
    mine = tmp_path / "data/sketchy/processed/valid/mine.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"old")
    ended = run("download_sketchy.sh", "sketchy.tgz")
    assert ended.returncode == 0, ended.stderr
    assert "valid is there already" in ended.stdout
    assert _files(tmp_path / "data" / "sketchy" / "processed") == {
        "train/ep000000/a.png": b"new",
        "test/ep000000/a.png": b"new",
        "valid/mine.png": b"old",
    }


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        ("missing.zip", "no file missing.zip"),
        ("http://127.0.0.1:1/file/d/123/view?usp=sharing", "does not end in the name"),
    ],
)
def test_unusable_archive_names_are_errors(run, archive, message):
    assert message in _error(run("download_ravens.sh", archive))


def test_coco_has_images_and_either_truth(run, server, tmp_path):
    nested = {
        f"annotations/panoptic_{part}.zip": _zip({f"panoptic_{part}/1.png": b"segments"})
        for part in ("train2017", "val2017")
    }
    server.files |= {
        "/zips/val2017.zip": _zip({"val2017/1.jpg": b"test"}),
        "/zips/train2017.zip": _zip({"train2017/2.jpg": b"train"}),
        "/annotations/annotations_trainval2017.zip": _zip(
            {"annotations/instances_val2017.json": b"{}", "annotations/captions_val2017.json": b""}
        ),
        "/annotations/panoptic_annotations_trainval2017.zip": _zip(
            {"annotations/panoptic_val2017.json": b"{}", **nested}
        ),
    }
    ended = run("download_coco.sh", "instances", "panoptic")
    assert ended.returncode == 0, ended.stderr
    assert _files(tmp_path / "data" / "coco") == {
        "val2017/1.jpg": b"test",
        "train2017/2.jpg": b"train",
        "annotations/instances_val2017.json": b"{}",
        "annotations/panoptic_val2017.json": b"{}",
        "annotations/panoptic_val2017/1.png": b"segments",
        "annotations/panoptic_train2017/1.png": b"segments",
    }
    asked = len(server.asked)
    assert run("download_coco.sh", "instances", "panoptic").returncode == 0
    assert len(server.asked) == asked


def test_voc_is_unpacked(run, server, tmp_path):
    files = {"VOCdevkit/VOC2012/JPEGImages/1.jpg": b"pixels", "VOCdevkit/VOC2007/x": b""}
    server.files["/VOCtrainval_11-May-2012.tar"] = _tar(files)
    ended = run("download_voc.sh")
    assert ended.returncode == 0, ended.stderr
    assert _files(tmp_path / "data" / "VOCdevkit") == {"VOC2012/JPEGImages/1.jpg": b"pixels"}
