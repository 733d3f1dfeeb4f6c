"""The page holds the CT's own HU, needs nothing from anywhere, and a browser shows it the right way round."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.browser import browser
from x2ct.cli import app
from x2ct.engine.residual import Residual
from x2ct.errors import InputError
from x2ct.io.ct.volume import Volume
from x2ct.io.xray.radiograph import XRay
from x2ct.render import preview, viewer

SHAPE = (20, 16, 24)


def phantom(shape: tuple[int, int, int] = SHAPE, synthetic: bool = True) -> Volume:
    """Water in air, with bone at the patient's right, front and head."""
    hu = np.full(shape, -1000, np.float32)
    x, y, z = shape
    hu[x // 4 : -x // 4, y // 4 : -y // 4, z // 8 : -z // 8] = 0
    hu[-x // 2 :, y // 2 - 2 : y // 2 + 2, -z // 4 :] = 1200
    return Volume(hu, np.diag([3.0, 3.0, 3.0, 1.0]), synthetic=synthetic)


def facts_of(page: Path) -> dict[str, object]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    facts: dict[str, object] = json.loads(found[1])
    return facts


def shown(facts: dict[str, object], row: int = 0) -> np.ndarray:
    data = gzip.decompress(base64.b64decode(facts["volumes"][row]["voxels"]))  # type: ignore[index]
    return np.frombuffer(data, "<i2").reshape(facts["shape"])  # type: ignore[arg-type]


def pictures_of(facts: dict[str, object]) -> list[Image.Image]:
    texts = [picture["png"].partition(",")[2] for picture in facts["pictures"]]  # type: ignore[attr-defined]
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in texts]


def test_the_page_holds_the_cts_own_hu_and_says_that_it_is_synthetic(tmp_path: Path) -> None:
    volume = phantom()
    facts = facts_of(viewer.save(tmp_path / "ct.html", volume))
    np.testing.assert_array_equal(shown(facts), volume.hu)
    assert facts["spacing_mm"] == [3.0, 3.0, 3.0]
    assert facts["warning"] == "synthetic, not for diagnosis"
    assert facts_of(viewer.save(tmp_path / "scan.html", phantom(synthetic=False)))["warning"] == ""


def test_the_page_asks_for_nothing_from_anywhere(tmp_path: Path) -> None:
    xray = XRay(np.random.default_rng(0).uniform(0, 5, (30, 20)).astype(np.float32), calibrated=True)
    text = viewer.save(tmp_path / "ct.html", phantom(), {"ap": xray}).read_text()
    facts = facts_of(tmp_path / "ct.html")
    text = re.sub(r'(application/json">).*?(</script>)', r"\1\2", text, flags=re.DOTALL)
    assert not re.search(r"https?://|//\w|@import|url\(|<link|<script src|fetch\(|XMLHttp", text)
    assert "default-src 'none'" in text
    (picture,) = pictures_of(facts)
    assert picture.height == 340


def test_a_name_can_not_break_out_of_the_page(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    page = viewer.save(tmp_path / "ct.html", phantom(), name=name)
    assert "<script>alert" not in page.read_text()
    assert facts_of(page)["name"] == name


def test_a_large_volume_is_shown_as_means_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "LARGEST_SIDE", 12)
    volume = phantom((25, 16, 1 + 1))
    facts = facts_of(viewer.save(tmp_path / "ct.html", volume))
    assert facts["shape"] == [8, 5, 1]
    assert facts["spacing_mm"] == [9.0, 9.0, 6.0]
    assert "shown at 1/3" in str(facts["text"])
    assert shown(facts)[2, 3, 0] == np.rint(volume.hu[6:9, 9:12, 0:2].mean())


def test_another_volume_is_shown_where_it_lies_and_a_deviation_has_its_own_window(tmp_path: Path) -> None:
    phantom().save(tmp_path / "ct.nii.gz")
    finer = phantom((40, 32, 48))
    finer.affine[:3, :3] /= 2
    finer.affine[:3, 3] = [-0.75 + 6.0, -0.75, -0.75]  # the same place, but for 6 mm, two voxels, to the right
    finer.save(tmp_path / "truth.nii.gz")
    spread = np.random.default_rng(0).uniform(0, 200, SHAPE)
    Volume(spread, phantom().affine).save(tmp_path / "ct_std.nii.gz")
    said = ["view", "ct.nii.gz", "--beside", "truth.nii.gz", "--beside", "ct_std.nii.gz"]
    result = CliRunner().invoke(app, [str(tmp_path / part) if part.endswith("gz") else part for part in said])
    assert result.exit_code == 0, result.output
    facts = facts_of(tmp_path / "ct.html")
    assert [row["name"] for row in facts["volumes"]] == ["ct", "truth", "ct_std"]  # type: ignore[attr-defined]
    inner = np.abs(shown(facts, 1)[4:-2, 2:-2, 2:-2] - shown(facts)[2:-4, 2:-2, 2:-2].astype(np.int32))
    assert np.median(inner) == 0 and inner.mean() < 30
    assert (shown(facts, 1)[0] == -1000).all()  # beyond it
    kinds = [(row["kind"], row["windows"]) for row in facts["volumes"]]  # type: ignore[attr-defined]
    assert kinds[0] == kinds[1] and kinds[0][0] == "CT"
    assert kinds[2] == ("standard deviation", {"standard deviation": [100.0, 200.0]})
    viewer.save(tmp_path / "std.html", Volume.load(tmp_path / "ct_std.nii.gz"))
    assert facts_of(tmp_path / "std.html")["volumes"][0]["kind"] == "standard deviation"  # type: ignore[index]


def test_the_command_writes_it_beside_the_ct(tmp_path: Path) -> None:
    phantom().save(tmp_path / "ct.nii.gz")
    np.save(tmp_path / "ap.npy", np.random.default_rng(0).uniform(0, 5, (30, 20)).astype(np.float32))
    result = CliRunner().invoke(app, ["view", str(tmp_path / "ct.nii.gz"), "--ap", str(tmp_path / "ap.npy")])
    assert result.exit_code == 0, result.output
    facts = facts_of(tmp_path / "ct.html")
    assert (facts["name"], facts["warning"]) == ("ct", "synthetic, not for diagnosis")
    assert [picture["ends"] for picture in facts["pictures"]] == ["RL"]  # type: ignore[attr-defined]


def test_the_page_shows_what_the_x_rays_show_beyond_the_ct(tmp_path: Path) -> None:
    """The map that `sample --unexplained` draws, to the pixel and in its own size."""
    phantom().save(tmp_path / "ct.nii.gz")
    image = np.random.default_rng(0).uniform(0, 5, (30, 20)).astype(np.float32)
    residual = Residual("ap", image - 2, (4.0, 4.0), 1.0, None, ())
    preview.save_unexplained(tmp_path / "map.png", [residual], {"ap": XRay.of(image)})
    said = ["view", str(tmp_path / "ct.nii.gz"), "--unexplained", str(tmp_path / "map.png")]
    result = CliRunner().invoke(app, said)
    assert result.exit_code == 0, result.output
    facts = facts_of(tmp_path / "ct.html")
    (picture,) = pictures_of(facts)
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(Image.open(tmp_path / "map.png")))
    assert facts["pictures"][0]["caption"] == "What each X-ray shows beyond the CT"  # type: ignore[index]
    cut = (tmp_path / "map.png").read_bytes()[:900]
    for change, found in (
        (lambda: (tmp_path / "map.png").write_bytes(cut), r"found what can't be read \(.*\)"),
        ((tmp_path / "map.png").unlink, "found no such file"),
    ):
        change()
        result = CliRunner().invoke(app, said)
        line = rf"x2ct: error: \S*map\.png: file: {found}, expected the \.png .* sample --unexplained wrote.*\n"
        assert result.exit_code == 2 and re.fullmatch(line, result.stderr), result.stderr


def test_the_command_takes_ones_word_on_an_xray(tmp_path: Path) -> None:
    phantom().save(tmp_path / "ct.nii.gz")
    np.save(tmp_path / "ap.npy", np.random.default_rng(0).integers(0, 99, (140, 140)))
    said = ["view", str(tmp_path / "ct.nii.gz"), "--ap", str(tmp_path / "ap.npy")]
    assert "--invert" in CliRunner().invoke(app, said).stderr
    assert CliRunner().invoke(app, [*said, "--invert", "ap=no"]).exit_code == 0


def test_a_missing_ct_or_a_wrong_ending_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["view", str(tmp_path / "nothing.nii.gz")])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    with pytest.raises(InputError, match=r"expected \.html"):
        viewer.save(tmp_path / "ct.txt", phantom())
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ in a browser


def chromium(*arguments: str) -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "no Chromium here: make test-browser installs it"
    settings = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--window-size=1280,900"]
    run = subprocess.run([program, *settings, *arguments], capture_output=True, text=True, timeout=120, check=True)
    return run.stdout


@pytest.mark.browser
def test_a_browser_shows_each_plane_the_right_way_round(tmp_path: Path) -> None:
    page = viewer.save(tmp_path / "ct.html", phantom())
    text = html.unescape(chromium("--dump-dom", page.as_uri()))
    assert 'data-ready="yes"' in text
    assert "synthetic, not for diagnosis" in text
    assert "HU at (10, 8, 12)" in text
    chromium(f"--screenshot={tmp_path / 'shot.png'}", page.as_uri())
    picture = np.asarray(Image.open(tmp_path / "shot.png").convert("L"), np.float32)
    sides = [(int(w), int(h)) for w, h in re.findall(r'<canvas [^>]*width="(\d+)" height="(\d+)"', text)]
    assert sum(w for w, _ in sides) > 0.9 * 1280 or sides[0][1] > 0.6 * 800, "it fills the window"
    coronal, _, axial = (canvas_box(picture, sides, number) for number in range(3))
    top, bottom = np.array_split(coronal, 2, axis=0)
    assert top.mean() > bottom.mean() + 5, "the head is up"
    left, right = np.array_split(coronal, 2, axis=1)
    assert left.mean() > right.mean() + 5, "the patient's right is on the left"
    assert axial.shape[0] < axial.shape[1], "a millimetre is as long along both sides"


@pytest.mark.browser
def test_a_phone_shows_each_plane_as_wide_as_its_window(tmp_path: Path) -> None:
    """Side by side they would be too small to see anything in, with their captions cut off."""
    xray = XRay.of(np.random.default_rng(0).uniform(0, 5, (30, 20)).astype(np.float32))
    drawn = viewer.save(tmp_path / "ct.html", phantom(), {"lateral": xray}, beside={"another": phantom()})
    with browser(tmp_path / "profile") as page:
        page.goto(drawn.as_uri(), 390, 844)
        page.until("document.body.dataset.ready === 'yes'")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        widths = page.evaluate("[...document.querySelectorAll('#planes canvas')].map((one) => one.clientWidth)")
        assert len(widths) == 6 and max(widths) > 0.9 * 390 and min(widths) > 200
        letters = "[...document.querySelectorAll('#xrays .picture span')].map((one) => one.textContent).join('')"
        assert page.evaluate(letters) == "AP"
        assert page.errors == []


def canvas_box(picture: np.ndarray, sides: list[tuple[int, int]], number: int) -> np.ndarray:
    """A plane's picture out of the page's: the figures of a row stand side by side, their lower edges in line."""
    width, height = sides[number]
    left = 14 + sum(w for w, _ in sides[:number]) + 10 * number
    rows = np.flatnonzero((picture[:, left : left + width] > 60).sum(1) > width // 4)
    start = rows[rows > 90][0]
    return picture[start : start + height, left : left + width]
