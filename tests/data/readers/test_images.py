"""CIFAR's binary files and folders of images: what is right is read, what is wrong is named."""

import logging
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import jdl.data
from jdl.core.errors import InputError
from jdl.data.readers.images import read_cifar, read_images

RNG = np.random.default_rng(0)


def cifar(path, n, classes=10):
    """A file of random images in CIFAR's format; returns what it holds."""
    x = RNG.integers(0, 256, (n, 32, 32, 3), np.uint8)
    y = np.arange(n) % classes
    planes = x.transpose(0, 3, 1, 2).reshape(n, -1)
    labels = [y[:, None]] if classes == 10 else [y[:, None] // 5, y[:, None]]
    np.concatenate([*(label.astype(np.uint8) for label in labels), planes], 1).tofile(path)
    return x, y


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_records(tmp_path, classes):
    x, y = cifar(tmp_path / "file.bin", 120, classes)
    read = read_cifar(tmp_path / "file.bin", classes)
    np.testing.assert_array_equal(read["x"], x)
    np.testing.assert_array_equal(read["y"], y)
    if classes == 100:
        np.testing.assert_array_equal(read["coarse"], y // 5)


BAD_CIFAR = {
    "cut short": (
        bytes(3073 * 2 - 5),
        r"(?s)file.bin.*records of 3073 bytes.*3068 after the last whole",
    ),
    "empty": (b"", r"(?s)file.bin.*an empty file"),
    "wrong label": (
        bytes([0]) + bytes(3072) + bytes([200]) + bytes(3072),
        "the first 200 at index",
    ),
}


def test_coarse_labels_are_checked(tmp_path):
    (tmp_path / "file.bin").write_bytes(bytes([77, 5]) + bytes(3072))
    with pytest.raises(InputError, match=r"file.bin, coarse labels\n.*0 to 19.*\n.*the first 77"):
        read_cifar(tmp_path / "file.bin", 100)


@pytest.mark.parametrize("case", BAD_CIFAR)
def test_damaged_cifar(tmp_path, case):
    data, message = BAD_CIFAR[case]
    (tmp_path / "file.bin").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_cifar(tmp_path / "file.bin")


def test_cifar_file_missing_or_of_another_kind(tmp_path):
    with pytest.raises(InputError, match=r"(?s)none.bin.*no such file"):
        read_cifar(tmp_path / "none.bin")
    with pytest.raises(InputError, match="10 or 100"):
        read_cifar(tmp_path / "none.bin", 20)


@pytest.mark.parametrize("inner", [".", "cifar-10-batches-bin"])
def test_cifar10_is_loaded(tmp_path, inner, monkeypatch):
    place = tmp_path / inner
    place.mkdir(exist_ok=True)
    made = [cifar(place / f"data_batch_{i}.bin", 40) for i in range(1, 6)]
    test_x, test_y = cifar(place / "test_batch.bin", 20)
    monkeypatch.setenv("JDL_DATA_DIR", str(tmp_path))
    data = jdl.data.load("cifar10")
    assert data.info["sizes"] == {"train": 180, "valid": 20, "test": 20}
    assert (data.info["classes"], data.info["shape"]) == (10, (32, 32, 3))
    np.testing.assert_array_equal(data.test()["x"], test_x.astype(np.float32) / 255)
    np.testing.assert_array_equal(data.test()["y"], test_y)
    both = np.concatenate([data.train["x"], data.valid["x"]]) * 255
    all_of = lambda x: sorted(map(bytes, x.round().astype(np.uint8).reshape(len(x), -1)))
    assert all_of(both) == all_of(np.concatenate([x for x, _ in made]))
    assert np.bincount(data.valid["y"]).tolist() == [2] * 10


def test_cifar100_keeps_the_coarse_labels(tmp_path):
    cifar(tmp_path / "train.bin", 1000, 100)
    cifar(tmp_path / "test.bin", 100, 100)
    data = jdl.data.load("cifar100", dir=tmp_path)
    assert data.info["classes"] == 100
    np.testing.assert_array_equal(data.train["coarse"], data.train["y"] // 5)


def test_cifar_without_its_files(tmp_path):
    cifar(tmp_path / "data_batch_1.bin", 10)
    with pytest.raises(InputError, match=r"(?s)got: +no data_batch_2.bin.*test_batch.bin"):
        jdl.data.load("cifar10", dir=tmp_path)
    with pytest.raises(InputError, match="JDL_DATA_DIR"):
        jdl.data.load("cifar100")


def picture(path, shape=(6, 4, 3), value=None):
    """A PNG of random pixels; returns them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, shape, np.uint8) if value is None else np.full(shape, value, "u1")
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "animals"


def test_classes_are_the_subfolders(folder, caplog):
    cat, dog = picture(folder / "cat" / "1.png"), picture(folder / "dog" / "b" / "2.PNG")
    again = picture(folder / "dog" / "a.png")
    (folder / "dog" / "notes.txt").write_text("a dog")
    (folder / ".cache").mkdir()
    with caplog.at_level(logging.WARNING, "jdl"):
        arrays, names = read_images(folder)
    assert names == ["cat", "dog"]
    np.testing.assert_array_equal(arrays["x"], np.stack([cat, again, dog]))
    assert arrays["x"].dtype == np.uint8 and arrays["y"].tolist() == [0, 1, 1]
    assert "skipped 1 files, e.g. notes.txt" in caplog.text


def test_grey_images_have_one_channel_unless_one_is_in_colour(folder):
    grey = picture(folder / "one" / "1.png", (6, 4))
    arrays, _ = read_images(folder)
    np.testing.assert_array_equal(arrays["x"], grey[None, ..., None])
    colour = picture(folder / "two" / "2.png")
    arrays, _ = read_images(folder)
    np.testing.assert_array_equal(arrays["x"], np.stack([np.repeat(grey[..., None], 3, 2), colour]))


def test_a_photograph_is_turned_as_its_camera_says(folder):
    pixels = RNG.integers(0, 256, (6, 4, 3), np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 3  # upside down
    (folder / "one").mkdir(parents=True)
    image.save(folder / "one" / "1.png", exif=exif)
    np.testing.assert_array_equal(read_images(folder)[0]["x"][0], pixels[::-1, ::-1])


def test_mixed_sizes_are_named_or_resized(folder):
    for i in range(3):
        picture(folder / "one" / f"{i}.png", (6, 4, 3), 7)
    picture(folder / "two" / "wide.png", (5, 9, 3), 9)
    with pytest.raises(InputError) as caught:
        read_images(folder)
    for word in ("2 sizes: 6x4 (3, e.g. one/0.png), 5x9 (1, e.g. two/wide.png)", "size=(6, 4)"):
        assert word in str(caught.value)
    arrays, _ = read_images(folder, size=(3, 8))
    assert arrays["x"].shape == (4, 3, 8, 3)
    assert (arrays["x"][:3] == 7).all() and (arrays["x"][3] == 9).all()


def test_an_unreadable_image_is_named(folder):
    picture(folder / "one" / "good.png")
    bad = folder / "one" / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"(?s)bad\.png.*cannot identify"):
        read_images(folder)
    picture(bad, (64, 64, 3))
    bad.write_bytes(bad.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"(?s)bad\.png.*truncated"):
        read_images(folder)
    Image.fromarray(np.zeros((6, 4), np.int32)).save(folder / "one" / "bad.tiff")
    bad.unlink()
    with pytest.raises(InputError, match=r"(?s)bad\.tiff.*8 bits.*mode I"):
        read_images(folder)


def test_folders_that_hold_no_classes(folder, monkeypatch):
    with pytest.raises(InputError, match="no such folder"):
        read_images(folder)
    folder.mkdir()
    with pytest.raises(InputError, match="no subfolders"):
        read_images(folder)
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=r"(?s)empty.*at least one image of this class"):
        read_images(folder)
    picture(folder / "empty" / "1.png")
    for size in ((0, 3), (8.0, 9.0), (8,), 8, "ab"):
        with pytest.raises(InputError, match="height, width"):
            read_images(folder, size=size)


def test_parts_of_a_set_are_not_classes(folder):
    picture(folder / "train" / "cat" / "1.png")
    picture(folder / "test" / "cat" / "1.png")
    with pytest.raises(InputError, match=r"(?s)subfolders test, train.*pass one split"):
        read_images(folder)
    picture(folder / "extra" / "1.png")
    with pytest.raises(InputError, match=r"(?s)subfolders extra, test, train.*split, .*test"):
        read_images(folder)
    assert read_images(folder / "test")[1] == ["cat"]  # what the message suggests
    shutil.rmtree(folder / "test")
    with pytest.raises(InputError, match=r"(?s)subfolders extra, train.*split, .*train"):
        read_images(folder)


def test_a_train_may_be_a_class(folder):
    for name in ("bus", "train"):
        picture(folder / name / "1.png")
    assert read_images(folder)[1] == ["bus", "train"]


def test_a_folder_is_loaded_by_its_path(folder):
    for name in ("cat", "dog"):
        for i in range(10):
            picture(folder / name / f"{i}.png")
    data = jdl.data.load(folder)
    assert data.info["labels"] == ["cat", "dog"] and data.info["classes"] == 2
    assert data.info["sizes"] == {"train": 14, "valid": 2, "test": 4}
    assert data.train["x"].dtype == np.float32 and 0.9 < data.train["x"].max() <= 1


def test_without_pillow(folder, monkeypatch):
    picture(folder / "one" / "1.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"(?s)Pillow.*pip install"):
        read_images(folder)


def save(path, mode="L", colour=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (4, 4), colour).save(path)


def test_classes_named_by_numbers_are_in_the_order_of_these(tmp_path):
    for name in ("10", "1", "2"):
        save(tmp_path / name / "0.png", colour=int(name))
    arrays, names = read_images(tmp_path)
    assert names == ["1", "2", "10"]
    assert arrays["x"][:, 0, 0, 0].tolist() == [1, 2, 10]


def test_what_systems_leave_behind_is_no_example_and_no_class(tmp_path, caplog):
    for name in ("cat", "dog"):
        save(tmp_path / name / "0.png")
        save(tmp_path / name / ".ipynb_checkpoints" / "0-checkpoint.png")
        save(tmp_path / name / "__MACOSX" / "0.png")
        save(tmp_path / name / "deeper" / ".thumbnails" / "0.png")
        for junk in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (tmp_path / name / junk).write_bytes(b"junk")
    for folder in (".ipynb_checkpoints", "__MACOSX", ".git"):
        save(tmp_path / folder / "0.png")
    with caplog.at_level(logging.WARNING):
        arrays, names = read_images(tmp_path)
    assert names == ["cat", "dog"] and arrays["y"].tolist() == [0, 1]
    assert not caplog.records


def test_the_folder_itself_may_be_in_a_hidden_one(tmp_path):
    save(tmp_path / ".cache" / "animals" / "cat" / "0.png")
    assert read_images(tmp_path / ".cache" / "animals")[1] == ["cat"]
