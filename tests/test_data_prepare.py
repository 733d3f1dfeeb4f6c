"""Preparing: table and padding go, lungs stay, any orientation gives the same shard, interrupted runs go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests import phantom
from x2ct.data.body import body_mask, coarsen, extract_body, lung_mask
from x2ct.data.prepare import PrepareOptions, _settle, choose_validation, find_cts, prepare, read_body, sheet
from x2ct.data.shards import Mark, ShardSet, read_patients, resample
from x2ct.errors import InputError
from x2ct.geometry.grid import Grid
from x2ct.io.ct.volume import Volume

CHEST = Grid((90, 70, 50), (5.0, 5.0, 7.0))
LIMB = Grid((32, 32, 24), (4.0, 4.0, 8.0))


def chest(seed: int = 0) -> np.ndarray:
    return phantom.chest(CHEST, seed, marker=False)


def with_table(hu: np.ndarray, gap: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The CT with a hollow table that touches the back (or leaves a gap), and where the table is."""
    back = int(np.argwhere(hu > -500)[:, 1].min()) - gap
    table = np.zeros(hu.shape, bool)
    table[10:-10, back - 1, :] = table[10:-10, back - 6, :] = True
    table[10, back - 6 : back, :] = table[-11, back - 6 : back, :] = True
    table &= hu < -900
    return np.where(table, 300.0, hu).astype(np.float32), table


def save(path: Path, hu: np.ndarray, grid: Grid = CHEST) -> Path:
    Volume(hu, grid.index_to_mm).save(path)
    return path


# ------------------------------------------------------------------------------------------------ the body


@pytest.mark.parametrize("gap", [0, 3])
def test_the_table_goes_and_the_patient_stays(gap: int) -> None:
    hu = chest()
    patient = body_mask(hu, CHEST.spacing_mm)
    scan, table = with_table(hu, gap)
    found = body_mask(scan, CHEST.spacing_mm)
    assert patient[hu > -400].mean() > 0.999
    assert found[patient].mean() > 0.999
    # Where the table lies on the skin, the skin's own thickness of it can't be told from the body.
    assert found[table].mean() < (0.12 if gap == 0 else 0.001)
    body = extract_body(scan, CHEST.index_to_mm)
    assert body is not None
    assert np.all(body.hu[~found] == -1000)
    assert np.array_equal(body.hu[found], np.rint(scan[found]).astype(np.int16))


def test_lungs_belong_to_the_body_even_behind_a_thin_wall() -> None:
    hu = chest()
    lungs = lung_mask(hu, body_mask(hu, CHEST.spacing_mm), CHEST.spacing_mm)
    assert lungs is not None
    # A chest wall of 10 mm: thinner than the opening, which would leave the right lung outside.
    thin = hu.copy()
    edge = np.argwhere(lungs)[:, 0].max()
    thin[edge + 3 :] = -1000.0
    thin[edge + 1 : edge + 3][thin[edge + 1 : edge + 3] > -500] = 40.0
    found = body_mask(thin, CHEST.spacing_mm)
    assert found[lungs].mean() > 0.999


def test_a_lung_that_tapers_off_behind_a_thin_wall_is_kept_to_its_tip() -> None:
    """Its last slices are crescents outside of the convex hull of what the opening leaves there."""
    x, y = np.meshgrid(np.arange(-42, 42) * 4.0, np.arange(-30, 30) * 4.0, indexing="ij")
    hu = np.full((*x.shape, 20), -1000.0)
    hu[np.hypot(x / 150, y / 100) < 1] = 40.0
    for k in range(20):
        lung = (
            (np.hypot(x / 140, y / 90) < 1)
            & (x > 50)
            & (abs(y) < 60)
            & (np.hypot(x / (128 - 4 * k), y / (78 - 4 * k)) > 1)
        )
        hu[lung, k] = -850.0
    found = body_mask(hu, (4.0, 4.0, 4.0))
    assert found[np.hypot(x / 148, y / 98) < 1].mean() > 0.999
    assert not found[np.hypot(x / 152, y / 102) > 1].any()


def test_a_table_filled_with_foam_like_lung_goes() -> None:
    hu = chest()
    scan, table = with_table(hu)
    back = int(np.argwhere(table)[:, 1].max())
    hollow = np.zeros(hu.shape, bool)
    hollow[11:-11, back - 4 : back, :] = True
    scan[hollow] = np.random.default_rng(0).normal(-850, 40, int(hollow.sum()))
    found = body_mask(scan, CHEST.spacing_mm)
    assert found[hollow].mean() < 0.001
    assert found[table].mean() < 0.12


def test_gas_in_the_body_belongs_to_it() -> None:
    hu = chest()
    hu[40:46, 30:36] = -1000.0  # a windpipe through all slices
    assert body_mask(hu, CHEST.spacing_mm)[40:46, 30:36].all()


def test_a_cut_field_of_view_loses_no_rim() -> None:
    hu = chest()[20:-20]
    found = body_mask(hu, CHEST.spacing_mm)
    assert found[hu > -400].mean() > 0.999


def test_lungs_are_found_in_a_chest_and_not_in_a_limb() -> None:
    hu = chest()
    lungs = lung_mask(hu, body_mask(hu, CHEST.spacing_mm), CHEST.spacing_mm)
    assert lungs is not None
    truth = np.abs(hu + 820) < 50
    assert 2 * (lungs & truth).sum() / (lungs.sum() + truth.sum()) > 0.9
    leg = phantom.limb(LIMB)
    assert lung_mask(leg, body_mask(leg, LIMB.spacing_mm), LIMB.spacing_mm) is None


def test_gas_in_the_bowel_is_no_lung() -> None:
    hu = chest()
    lungs = np.abs(hu + 820) < 100
    gas = np.where(lungs, np.random.default_rng(0).normal(-990, 15, hu.shape), hu)
    body = body_mask(hu, CHEST.spacing_mm)
    assert lung_mask(hu, body, CHEST.spacing_mm) is not None
    assert lung_mask(gas, body, CHEST.spacing_mm) is None


def test_a_windpipe_above_the_lungs_does_not_move_the_grid() -> None:
    """However much of the neck a scan holds, the same lungs lie at the same place of the grid."""
    hu = chest()
    lungs = lung_mask(hu, body_mask(hu, CHEST.spacing_mm), CHEST.spacing_mm)
    assert lungs is not None
    x, y, top = np.argwhere(lungs)[np.argwhere(lungs)[:, 2].argmax()]
    neck = np.full((*CHEST.shape[:2], 20), -1000.0, np.float32)
    neck[x - 12 : x + 16, y - 8 : y + 12] = 40.0
    scan = np.concatenate([hu[:, :, : top + 3], neck], axis=2)
    scan[x : x + 4, y : y + 4, top:-3] = -900.0  # 4 cm2
    short, long = (extract_body(part, CHEST.index_to_mm) for part in (scan[:, :, : top + 3], scan))
    assert short is not None and long is not None and long.lungs_mm is not None
    assert np.array_equal(short.index_to_mm[2], long.index_to_mm[2])
    assert np.ptp(long.lungs_mm[:, 2]) <= np.ptp(np.flatnonzero(lungs.any(axis=(0, 1)))) * CHEST.spacing_mm[2]


def test_the_share_of_bone_counts_body_voxels_alone() -> None:
    hu = np.where(np.hypot(*np.meshgrid(np.arange(-40, 40), np.arange(-40, 40))) < 30, 40.0, -1000.0)
    hu = np.repeat(hu[:, :, None], 10, axis=2)
    hu[35:45, 35:45] = 700.0
    scan = hu.copy()
    scan[:, 75:77] = 2000.0  # a table's sheet
    body = extract_body(scan, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert body is not None
    assert body.bone_share == pytest.approx(100 * 10 / (hu > -500).sum(), rel=0.02)


def trunk() -> tuple[np.ndarray, np.ndarray]:
    """A chest above as much lungless trunk, off-centre in its file; HU and affine."""
    hu = chest()
    belly = np.where(np.abs(hu + 820) < 400, 50.0, hu).astype(np.float32)
    affine = CHEST.index_to_mm.copy()
    affine[:3, 3] += [40.0, -25.0, 300.0]
    return np.concatenate([belly, hu], axis=2), affine


def test_a_trunk_is_centred_on_its_lungs_or_on_its_body() -> None:
    hu, affine = trunk()
    by_lungs, by_body = (extract_body(hu, affine, centre) for centre in ("lungs", "body"))
    assert by_lungs is not None
    assert by_body is not None
    assert by_lungs.region == "chest"
    assert by_lungs.lungs_mm is not None
    low, high = by_lungs.lungs_mm
    assert (low + high)[2] == pytest.approx(0, abs=1e-6)
    assert high[2] - low[2] == pytest.approx(250, abs=40)
    assert by_body.body_mm.sum(axis=0)[2] == pytest.approx(0, abs=1e-6)
    assert by_lungs.index_to_mm[2, 3] < by_body.index_to_mm[2, 3] - 100
    # x and y: the middle of the trunk, wherever the file's origin is.
    assert np.allclose((by_lungs.body_mm.sum(axis=0) / 2)[:2], 0, atol=CHEST.spacing_mm[0])
    assert np.allclose(by_lungs.origin @ by_lungs.index_to_mm, affine)


def test_coarsening_keeps_extent_place_and_mean() -> None:
    fine = Grid((80, 64, 40), (0.6, 0.8, 2.0))
    hu = phantom.sphere(fine, 18.0, hu=0.0, centre_mm=(2.0, -1.0, 3.0))
    out, affine = coarsen(hu, fine.index_to_mm, 1.25)
    assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), (1.25, 1.25, 2.0))
    assert out.shape[2] == 40
    assert abs(out.shape[0] * 1.25 - 48) < 1.25
    middle = affine[:3, :3] @ ((np.array(out.shape) - 1) / 2) + affine[:3, 3]
    assert np.allclose(middle, 0, atol=1e-9)
    mass = float((out + 1000).sum()) * 1.25 * 1.25 * 2.0
    assert mass == pytest.approx(float((hu + 1000).sum()) * 0.6 * 0.8 * 2.0, rel=3e-3)
    same, _ = coarsen(hu, fine.index_to_mm, 0.5)
    assert np.array_equal(same, hu)


# ------------------------------------------------------------------------------------------------ files to shards


@pytest.fixture
def cts(tmp_path: Path) -> Path:
    """Three limbs in NIfTI files, one of them in a subfolder."""
    folder = tmp_path / "cts"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate(("a.nii.gz", "b.nii", "more/c.nii")):
        save(folder / name, phantom.limb(LIMB, seed), LIMB)
    return folder


def test_the_file_orientation_does_not_matter(tmp_path: Path) -> None:
    import nibabel as nib
    from nibabel import orientations

    hu, affine = trunk()
    hu = hu[::2, ::2, ::2]
    affine = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    ras = nib.Nifti1Image(np.rint(hu).astype(np.int16), affine)
    bodies = []
    for codes in ("RAS", "LPS", "LAI", "SPR", "ALS"):
        turn = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes))
        path = tmp_path / f"{codes}.nii"
        ras.as_reoriented(turn).to_filename(path)
        bodies.append(read_body(path))
    for body in bodies[1:]:
        assert np.array_equal(body.hu, bodies[0].hu)
        assert np.allclose(body.index_to_mm, bodies[0].index_to_mm)


def test_patients_come_out_as_they_went_in(cts: Path, tmp_path: Path) -> None:
    steps = []
    result = prepare(cts, tmp_path / "shards", grid=LIMB, validation=["b"], progress=lambda *step: steps.append(step))
    assert result.patients == ("a", "b", "more_c")
    assert result.validation == ("b",)
    assert result.kept == result.failures == ()
    assert steps == [(0, 3, "a"), (1, 3, "b"), (2, 3, "more_c"), (3, 3, "")]
    shards = ShardSet.open(tmp_path / "shards")
    assert shards.grid == LIMB
    for seed, patient in enumerate(shards.patients):
        patient.verify()
        assert patient.split == ("validation" if patient.id == "b" else "train")
        assert patient.region == "other"
        truth = phantom.limb(LIMB, seed)
        # The limb reaches over the whole height and its trunk is centred, to half a voxel.
        moved = patient.index_to_mm[:3, 3] - LIMB.index_to_mm[:3, 3]
        assert np.abs(moved).max() <= LIMB.spacing_mm[0]
        assert np.abs(patient.hu()[truth > -400] - truth[truth > -400]).max() <= 0.5
        assert np.all(patient.hu()[truth < -999] == -1000)
        assert resample(patient, LIMB).shape == LIMB.shape
    assert str(tmp_path) not in (tmp_path / "shards" / "index.json").read_text()


def test_a_second_run_keeps_what_is_done_and_redoes_what_changed(cts: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    prepare(cts, out, validation=[])
    stamps = {p.name: p.stat().st_mtime_ns for p in out.glob("*.npy")}
    assert prepare(cts, out, validation=["a"]).kept == ("a", "b", "more_c")
    assert {p.name: p.stat().st_mtime_ns for p in out.glob("*.npy")} == stamps
    assert [p.id for p in ShardSet.open(out).select("validation")] == ["a"]

    save(cts / "b.nii", phantom.limb(LIMB, 9), LIMB)
    damaged = out / "a.npy"
    damaged.write_bytes(damaged.read_bytes()[:-2])
    assert prepare(cts, out, validation=[]).kept == ("more_c",)
    assert prepare(cts, out, options=PrepareOptions("body"), validation=[]).kept == ()
    for patient in ShardSet.open(out).patients:
        patient.verify()

    (cts / "b.nii").unlink()
    assert prepare(cts, out, options=PrepareOptions("body"), validation=[]).patients == ("a", "more_c")


def test_an_interrupted_run_goes_on(cts: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"

    def stop(done: int, total: int, name: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(cts, out, progress=stop)
    assert [p.id for p in ShardSet.open(out).patients] == ["a", "b"]
    assert prepare(cts, out).kept == ("a", "b")
    assert sorted(p.name for p in out.iterdir()) == ["a.npy", "b.npy", "index.json", "more_c.npy"]
    # Stopped while making one again: the others, not come to yet, are not forgotten.
    save(cts / "a.nii.gz", phantom.limb(LIMB, 7), LIMB)
    with pytest.raises(KeyboardInterrupt):
        prepare(cts, out, progress=lambda done, total, name: stop(done + 1, total, name))
    assert prepare(cts, out).kept == ("a", "b", "more_c")


def test_a_bad_ct_is_one_line_and_the_rest_goes_on(cts: Path, tmp_path: Path) -> None:
    (cts / "text.nii").write_text("not a CT")
    (cts / "cut.nii.gz").write_bytes((cts / "a.nii.gz").read_bytes()[:400])
    save(cts / "air.nii", np.where(np.arange(LIMB.shape[2]) > 3, -1000.0, -700.0) * np.ones(LIMB.shape), LIMB)
    result = prepare(cts, tmp_path / "shards", validation=[])
    assert result.patients == ("a", "b", "more_c")
    assert sorted(Path(source).name for source, _ in result.failures) == ["air.nii", "cut.nii.gz", "text.nii"]
    assert all("\n" not in line and line for _, line in result.failures)
    assert any("no body" in line for _, line in result.failures)


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "cts"
    with pytest.raises(InputError, match="nothing there"):
        prepare(folder, tmp_path / "out")
    folder.mkdir()
    with pytest.raises(InputError, match="none"):
        prepare(folder, tmp_path / "out")
    (folder / "x.nii").write_text("no")
    with pytest.raises(InputError, match="none usable of 1"):
        prepare(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()


def test_options_are_checked(cts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="centre"):
        PrepareOptions("heart")
    with pytest.raises(InputError, match="finest_mm"):
        PrepareOptions(finest_mm=0)
    with pytest.raises(InputError, match="nobody"):
        prepare(cts, tmp_path / "out", validation=["nobody"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="output"):
        prepare(cts, tmp_path / "file")


def test_two_files_of_one_name_are_refused(cts: Path) -> None:
    shutil.copy(cts / "b.nii", cts / "b.nii.gz")
    with pytest.raises(InputError, match="one CT a name"):
        find_cts(cts)


def test_validation_patients_stay_when_others_join(cts: Path, tmp_path: Path) -> None:
    names = [f"patient{k}" for k in range(400)]
    few, all_ = choose_validation(names[:200], 0.1), choose_validation(names, 0.1)
    assert set(few) == set(all_) & set(names[:200])
    assert 20 <= len(all_) <= 60
    # Of a few patients one is set aside, never all.
    assert len(prepare(cts, tmp_path / "out").validation) == 1
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(cts / "b.nii", only)
    assert prepare(only, tmp_path / "out1").validation == ()


def test_a_dicom_folder_is_one_patient(cts: Path, tmp_path: Path) -> None:
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    hu = np.rint(phantom.limb(LIMB, 0)).astype(np.int16)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    folder = cts / "scan"
    folder.mkdir()
    for k in range(hu.shape[2]):
        data = pydicom.Dataset()
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, frame
        data.Modality, data.InstanceNumber, data.PatientID = "CT", k + 1, "x"
        data.Rows, data.Columns = hu.shape[1], hu.shape[0]
        data.PixelSpacing, data.SliceThickness = [LIMB.spacing_mm[1], LIMB.spacing_mm[0]], LIMB.spacing_mm[2]
        # DICOM is LPS+: columns run to the patient's left, rows to the back.
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        x, y, z = LIMB.index_to_mm[:3, 3]
        data.ImagePositionPatient = [float(x), float(y), float(z + k * LIMB.spacing_mm[2])]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = np.ascontiguousarray(hu[::-1, ::-1, k].T).tobytes()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.save_as(folder / f"slice{k:03d}", enforce_file_format=True)  # no .dcm: found by its magic
    assert list(find_cts(cts)) == ["a", "b", "more_c", "scan"]
    result = prepare(cts, tmp_path / "out", validation=[])
    assert result.failures == ()
    patients = {p.id: p for p in ShardSet.open(tmp_path / "out").patients}
    assert np.array_equal(patients["scan"].hu(), patients["a"].hu())
    assert np.allclose(patients["scan"].index_to_mm, patients["a"].index_to_mm)
    assert json.loads((tmp_path / "out" / "index.json").read_text())["people"][3]["made_from"]["files"] == hu.shape[2]


# ------------------------------------------------------------------------------------------------ other layouts


def place(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_of_an_nnunet_dataset_the_training_images_are_the_cts(tmp_path: Path) -> None:
    place(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_1_0000.nii.gz", "imagesTr/a_0001.nii.gz")
    place(tmp_path, "labelsTr/a.nii.gz", "imagesTs/c_0000.nii.gz")
    assert list(find_cts(tmp_path)) == ["a", "b_1"]
    assert list(find_cts(tmp_path / "imagesTr")) == ["a", "b_1"]
    assert list(find_cts(tmp_path / "imagesTs")) == ["c"]
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "PET", "1": "CT"}}')
    assert find_cts(tmp_path) == {"a": tmp_path / "imagesTr" / "a_0001.nii.gz"}
    for names in ('{"0": "T2"}', '{"0": "CT", "1": "CT"}', '["CT"]', '{"x": "CT"}'):
        (tmp_path / "dataset.json").write_text(f'{{"channel_names": {names}}}')
        with pytest.raises(InputError, match=r"dataset\.json: channel_names: found .*with the name CT"):
            find_cts(tmp_path)


def test_of_a_bids_dataset_the_cts_are_found_and_a_patient_stays_in_one_split(tmp_path: Path) -> None:
    sessions = [f"sub-{patient}_ses-{visit}" for patient in range(8) for visit in range(3)]
    place(tmp_path, *(f"{name.partition('_')[0]}/ct/{name}_ct.nii.gz" for name in sessions))
    place(tmp_path, "sub-0/anat/sub-0_T1w.nii.gz", "derivatives/sub-0/sub-0_ct.nii.gz", "participants.tsv")
    assert list(find_cts(tmp_path)) == sessions
    for share in (0.2, 0.5, 0.8):
        chosen = choose_validation(sessions, share)
        assert chosen == tuple(
            name for name in sessions if name.partition("_")[0] in {c.partition("_")[0] for c in chosen}
        )
    # Where the hash would choose nobody or everybody, one patient is moved, with all sessions.
    for start in (set(), set(sessions)):
        settled = _settle(start, sessions, sessions)
        moved = settled ^ start
        assert len(moved) == 3 and len({name.partition("_")[0] for name in moved}) == 1
    with pytest.raises(InputError, match="validation: found some CTs of sub-3, expected all CTs of a patient, or none"):
        prepare(tmp_path, tmp_path / "out", validation=["sub-3_ses-1", "sub-4_ses-0", "sub-4_ses-1", "sub-4_ses-2"])
    assert not (tmp_path / "out").exists()
    assert _settle(set(), sessions[:3], sessions[:3]) == set()  # one patient alone is trained on


def test_participants_of_bids_are_a_patient_table(tmp_path: Path) -> None:
    ids = ["sub-1_ses-a", "sub-1_ses-b", "sub-10", "sub-2"]
    path = tmp_path / "participants.tsv"
    path.write_text(
        "participant_id\tage\tsplit\treason\n"
        "sub-1\t61\tvalidation\tn/a\nsub-2\tn/a\tleave-out\tmetal\nsub-7\t5\tn/a\tn/a\n"
    )
    held = Mark("validation")
    assert read_patients(path, ids) == {ids[0]: held, ids[1]: held, "sub-2": Mark("leave-out", "", "metal")}
    path.write_text("participant_id\tsplit\nsub-7\ttrain\n")
    with pytest.raises(InputError, match="line 2: participant_id: found sub-7, expected one of"):
        read_patients(path, ids)
    path.write_text("participant_id\tsplit\nsub-1\ttrain\nsub-1\tvalidation\n")
    with pytest.raises(InputError, match="line 3: participant_id: found sub-1 again"):
        read_patients(path, ids)


# ------------------------------------------------------------------------------------------------ the patient table


def table(folder: Path, text: str) -> Path:
    path = folder / "patients.csv"
    path.write_text(text)
    return path


def test_a_patient_table_says_who_is_used_for_what(cts: Path, tmp_path: Path) -> None:
    marks = table(
        tmp_path,
        "id,split,region,reason,source,licence\n"
        'a,leave-out,,"cut, and noisy",somewhere,CC BY 4.0\n'
        "b,validation,chest,,,\n",
    )
    out = tmp_path / "shards"
    prepare(cts, out, validation=[])
    result = prepare(cts, out, patients=marks)
    assert result.patients == ("b", "more_c")
    assert result.left_out == (("a", "cut, and noisy"),)
    assert result.validation == ("b",)
    assert result.kept == ("b", "more_c")  # a mark makes no shard again
    assert {p.id: (p.split, p.region) for p in ShardSet.open(out).patients} == {
        "b": ("validation", "chest"),
        "more_c": ("train", "other"),
    }
    left_out = json.loads((out / "index.json").read_text())["left_out"]
    assert left_out == [{"id": "a", "reason": "cut, and noisy"}]
    # Without the table, all is as it was found.
    assert prepare(cts, out, validation=[]).patients == ("a", "b", "more_c")
    assert {p.region for p in ShardSet.open(out).patients} == {"other"}
    assert json.loads((out / "index.json").read_text())["left_out"] == []


def test_chance_sets_aside_only_patients_whom_the_table_leaves_open(cts: Path, tmp_path: Path) -> None:
    for open_one, others in (("a", ("b", "more_c")), ("b", ("a", "more_c")), ("more_c", ("a", "b"))):
        marks = table(tmp_path, "id,split\n" + "".join(f"{name},train\n" for name in others))
        assert prepare(cts, tmp_path / "shards", patients=marks).validation == (open_one,)
    marks = table(tmp_path, "id,split\na,train\nb,train\nmore_c,train\n")
    assert prepare(cts, tmp_path / "shards", patients=marks).validation == ()
    assert prepare(
        cts, tmp_path / "shards", patients=table(tmp_path, "id,split\nb,\n"), validation=["a"]
    ).validation == ("a",)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("id,split\nnobody,train\n", "nobody"),
        ("id,splits\na,train\n", "splits"),
        ("split\ntrain\n", "columns"),
        ("id,split\na,test\n", "line 2: split: found test"),
        ("id,region\na,leg\n", "line 2: region: found leg"),
        ("id,split\na,train\na,train\n", "a again"),
        ("id,split\na,leave-out\n", "why a is left out"),
        ("id,split\na\n", "line 2: columns"),
        ("id,split\nc,train\n", "found c, expected one of a, b, more_c"),
        ("id,split\nb,train\n", "validation: found b"),
    ],
)
def test_a_wrong_patient_table_is_one_line(text: str, named: str, cts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=named) as caught:
        prepare(cts, tmp_path / "shards", patients=table(tmp_path, text), validation=["b"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "shards").exists()


# ------------------------------------------------------------------------------------------------ contact sheets


def test_sheets_are_written_once_and_made_again_when_they_would_change(cts: Path, tmp_path: Path) -> None:
    from PIL import Image

    out = tmp_path / "shards"
    (cts / "text.nii").write_text("not a CT")

    def run(**options: object) -> dict[str, tuple[int, bytes]]:
        result = prepare(cts, out, grid=LIMB, validation=[], preview=True, **options)  # type: ignore[arg-type]
        assert result.patients == ("a", "b", "more_c") and len(result.failures) == 1
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.glob("[!_]*.png")}

    prepare(cts, out, grid=LIMB, validation=[])
    assert not list(out.glob("*.png"))
    first = run()  # of patients whose shards an earlier run has made
    assert sorted(first) == ["a.png", "b.png", "more_c.png"]
    with Image.open(out / "_overview1.png") as picture:
        assert picture.width > 3 * 400
    assert run() == first
    (out / "a.png").unlink()
    again = run()
    assert again["a.png"][1] == first["a.png"][1]  # the same bytes twice
    assert again["b.png"] == first["b.png"]
    marked = run(patients=table(tmp_path, "id,region\nb,chest\n"))
    assert marked["b.png"][1] != first["b.png"][1] and marked["a.png"] == again["a.png"]
    save(cts / "a.nii.gz", phantom.limb(LIMB, 8), LIMB)
    prepare(cts, out, grid=LIMB, validation=[])
    assert not (out / "a.png").exists()  # rather none than one of another shard
    assert run()["a.png"][1] != first["a.png"][1]
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_a_sheet_shows_slices_bones_and_the_x_rays_of_training(
    cts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from x2ct.data.augment import plain_study
    from x2ct.render import panels, preview
    from x2ct.training.config import TrainConfig
    from x2ct.training.runs import training_geometry

    prepare(cts / "b.nii", tmp_path / "shards", grid=LIMB)
    (patient,) = ShardSet.open(tmp_path / "shards").patients
    drawn: list[tuple[list[list[str]], str]] = []
    seen = []

    def page(rows: list[list[panels.Panel]], footer: str, heading: str = "") -> object:
        drawn.append(([[panel.title.split(",")[0] for panel in row] for row in rows], heading))
        return panels.page(rows, footer, heading)

    def xray_panels(xrays: dict, height: int) -> list[panels.Panel]:
        seen.extend(xray.image for xray in xrays.values())
        return original(xrays, height)

    original = preview.xray_panels
    monkeypatch.setattr(preview, "page", page)
    monkeypatch.setattr(preview, "xray_panels", xray_panels)
    assert sheet(patient, LIMB).startswith(b"\x89PNG")
    ((titles, heading),) = drawn
    assert titles == [["coronal", "sagittal", "axial", "X-ray"], ["bone (MIP)"] * 3 + ["X-ray"]]
    for word in ("b: other", "no lungs", "32 x 32 x 24 voxels of 4 x 4 x 8 mm", "bone "):
        assert word in heading
    study = plain_study(patient, LIMB, training_geometry(TrainConfig()))
    assert np.allclose(np.stack(seen), study.views, rtol=1e-5)
