"""The server's page in a browser: files are dropped, read, corrected, sampled, looked at and downloaded."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra serve: pip install 'x2ct[serve]'")

from tests.browser import Page, browser
from tests.serving import ROOT, files_in, serving

pytestmark = pytest.mark.browser

DEMO = ROOT / "x2ct" / "models" / "demo"
XRAYS = [DEMO / "ap.npy", DEMO / "lateral.npy"]


def downloaded(page: Page, name: str) -> bytes:
    """A file behind one of the page's links."""
    text = page.evaluate(
        f"""fetch(document.querySelector('#downloads a[download="{name}"]').href).then((answer) => answer.blob()).then(
            (blob) => new Promise((done) => {{
                const reader = new FileReader();
                reader.onload = () => done(reader.result.split(",")[1]);
                reader.readAsDataURL(blob);
            }}))"""
    )
    return base64.b64decode(text)


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_two_files_become_a_ct_to_look_at(tiny_path: Path, tmp_path: Path, width: int, height: int) -> None:
    own = tmp_path / "server"
    own.mkdir()
    with serving(tiny_path, own) as server, browser(tmp_path / "profile") as page:
        page.goto(str(server.client.base_url), width, height)
        page.until("document.body.dataset.state === 'ready'")
        page.choose_files("#files", XRAYS)
        page.until("document.querySelector('#cards').dataset.read === 'true'")
        views = page.evaluate("[...document.querySelectorAll('[name=view]')].map((one) => one.value)")
        assert views == ["ap", "lateral"]
        before = page.evaluate("document.querySelector('.card img').src")
        page.click(".card [data-turn='90']")
        page.until(f"document.querySelector('.card img').src !== {json.dumps(before)}")
        page.until("!document.querySelector('#start').disabled")
        notes = page.evaluate("document.querySelector('.card .notes').textContent")
        assert "turned by 90 degrees clockwise" in notes
        page.click(".card [data-turn='-90']")
        page.until(f"document.querySelector('.card img').src === {json.dumps(before)}")
        page.until("!document.querySelector('#start').disabled")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"

        page.evaluate("document.querySelector('#samples').value = 2")
        page.click("#start")
        page.until("['shown', 'failed'].includes(document.body.dataset.state)")
        assert page.evaluate("document.querySelector('#start-problem').textContent") == ""
        assert page.evaluate("document.querySelector('#viewer-problem').textContent") == ""
        assert files_in(own) == [], "the server has nothing any more"
        names = page.evaluate("[...document.querySelectorAll('#downloads a')].map((one) => one.download)")
        assert {"volume.nii.gz", "volume_std.nii.gz", "report.json", "preview.png", "unexplained.png"} <= set(names)
        ct = nibabel.Nifti1Image.from_bytes(gzip.decompress(downloaded(page, "volume.nii.gz")))
        hu = np.asarray(ct.dataobj)
        the_crosshair_moves_and_tells_the_hu(page, hu, ct.affine)
        deviation = nibabel.Nifti1Image.from_bytes(gzip.decompress(downloaded(page, "volume_std.nii.gz")))
        the_projection_is_the_brightest_voxel(page, hu, np.asarray(deviation.dataobj))
        the_map_marks_what_is_unexplained(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        shot = page.screenshot(tmp_path / "page.png", whole=True)
        assert np.asarray(Image.open(shot).convert("L")).std() > 5
        assert page.errors == []


def the_crosshair_moves_and_tells_the_hu(page: Page, hu: np.ndarray, affine: np.ndarray) -> None:
    places = []
    page.evaluate("document.querySelector('#canvas').focus()")
    for _ in range(2):
        page.press("ArrowLeft")
        page.until("document.querySelector('#cursor').textContent.includes('HU at')")
        text = page.evaluate("document.querySelector('#cursor').textContent")
        said, *mm = map(float, re.findall(r"-?[\d.]+", text))
        index = np.rint(np.linalg.inv(affine) @ [*mm, 1])[:3].astype(int)
        assert said == hu[tuple(index)]
        places.append(index)
    assert list(places[1] - places[0]) == [1, 0, 0], "to the left is to the patient's right"


def the_map_marks_what_is_unexplained(page: Page) -> None:
    """The areas of the list have their circles on the map, which is the answer's file."""
    report = json.loads(downloaded(page, "report.json"))
    listed = page.evaluate("[...document.querySelectorAll('#unexplained li')].map((one) => one.textContent)")
    areas = [(entry["view"], len(entry["before"]["unexplained"])) for entry in report["residual"]]
    expected = [f"{view} {number + 1}:" for view, count in areas for number in range(count)]
    assert expected and [text.split(" the")[0] for text in listed] == expected
    size = page.evaluate("[document.querySelector('#map')].map((one) => [one.naturalWidth, one.naturalHeight])[0]")
    picture = Image.open(io.BytesIO(downloaded(page, "unexplained.png")))
    assert tuple(size) == picture.size
    assert (np.asarray(picture) == (255, 214, 80)).all(-1).any()


def the_projection_is_the_brightest_voxel(page: Page, ct: np.ndarray, deviation: np.ndarray) -> None:
    """Show the CT from 0 to 1200 HU, a volume chosen meanwhile in its own window, and the CT again."""
    page.click("[data-view=projection]")
    page.until("!document.querySelector('#projections').hidden")
    high = np.sort(deviation, axis=None)[int(0.995 * (deviation.size - 1))]  # the preview's window of it
    std = max(10, 10 * math.ceil(high / 10))
    for name, hu, white in (("", ct, 1200), ("volume_std.nii.gz", deviation, std), ("volume.nii.gz", ct, 1200)):
        if name:
            page.evaluate(
                f"""(async () => {{ const before = document.querySelector('#projections canvas');
                const choice = document.querySelector('#volumes');
                choice.value = {json.dumps(name)};
                choice.dispatchEvent(new Event('change'));
                const same = () => document.querySelector('#projections canvas') === before;
                while (same()) await new Promise(requestAnimationFrame);
                }})()"""
            )
        shown = page.evaluate(
            """(() => { const canvas = document.querySelector('#projections canvas');
            return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]; })()"""
        )
        brightest = hu.max(axis=1).T[::-1, ::-1].astype(np.float64)
        expected = np.clip(brightest / white * 255, 0, 255)
        grey = np.asarray(shown).reshape(*brightest.shape, 4)[..., 0]
        assert np.abs(grey - expected).max() <= 1, name
    page.click("[data-view=planes]")


def test_one_view_is_not_compared_and_the_page_says_so(tiny_path: Path, tmp_path: Path) -> None:
    """Its map is grey all over, which without a word would look as if nothing were missing."""
    with serving(tiny_path, tmp_path) as server, browser(tmp_path / "profile") as page:
        page.goto(str(server.client.base_url), 390, 500)
        page.until("document.body.dataset.state === 'ready'")
        page.choose_files("#files", XRAYS[:1])
        page.until("!document.querySelector('#start').disabled")
        page.click("#start")
        page.until("['shown', 'failed'].includes(document.body.dataset.state)")
        listed = page.evaluate("[...document.querySelectorAll('#unexplained li')].map((one) => one.textContent)")
        assert len(listed) == 1 and listed[0].startswith("ap: could not be compared"), listed


def test_a_token_is_asked_for_on_the_page(tiny_path: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a token of 24 characters")
    with serving(tiny_path, tmp_path, "--token-file", str(token)) as server, browser(tmp_path / "profile") as page:
        page.goto(str(server.client.base_url), 900, 700)
        page.until("!document.querySelector('#token-form').hidden")
        for text in ("wrong", token.read_text()):
            page.evaluate(f"document.querySelector('#token').value = {json.dumps(text)}")
            page.click("#token-form button")
            page.until(
                "document.querySelector('#token-problem').textContent || document.body.dataset.state === 'ready'"
            )
        page.until("document.body.dataset.state === 'ready'")
        page.choose_files("#files", [ROOT / "README.md"])
        page.until("document.querySelector('.card .problem').textContent")
        assert "expected" in page.evaluate("document.querySelector('.card .problem').textContent")
        assert page.evaluate("document.querySelector('#start').disabled")
