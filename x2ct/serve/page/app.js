// The front page of `x2ct serve`: reads X-rays, starts a job, watches it, and shows the CT. Talks to /v1 and to nobody else.
"use strict";

const byId = (id) => document.getElementById(id);
const LIVE_MS = 400;
const BONE = [0, 1200]; // HU from black to white, of projections
let info = null, token = "", job = "";

// ---------------------------------------------------------------------------------------------- the server

/** An answer of the server, or an Error whose message is its one line; a wrong token brings the question for it. */
async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server can't be reached. Is it still running?");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({ message: `${answer.status} ${answer.statusText}` }));
  const error = new Error(problem.message);
  error.status = answer.status;
  error.retry = Number(answer.headers.get("Retry-After") || 0);
  throw error;
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function enter() {
  try {
    info = await (await ask("v1/info")).json();
  } catch (error) {
    if (error.status === 401) byId("token-form").hidden = false;
    byId("token-problem").textContent = error.status === 401 && !token ? "" : error.message;
    if (error.status !== 401) byId("notice").textContent = error.message;
    return;
  }
  byId("token-form").hidden = true;
  byId("steps").hidden = false;
  const sides = info.grid.shape.join(" x "), pitch = info.grid.spacing_mm.map((mm) => +mm.toFixed(3)).join(" x ");
  byId("model").textContent = `Model ${info.model.name}: ${sides} voxels of ${pitch} mm, on ${info.device}; version ${info.version}`;
  byId("notice").textContent = info.notice;
  byId("samples").max = info.limits.samples;
  for (const name of Object.keys(info.windows_hu)) addPreset(name, info.windows_hu[name]);
  document.body.dataset.state = "ready";
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  enter();
});

// ---------------------------------------------------------------------------------------------- X-rays

const cards = []; // { file, view, said, element, result, asked }

const frontal = (view) => view !== "lateral";

/** Read files one after the other, so that of two that don't say their view the first is frontal. */
async function addFiles(files) {
  byId("drop-problem").textContent = "";
  for (const file of files) {
    if (cards.length === 2) {
      byId("drop-problem").textContent = `${file.name}: found a third X-ray, expected at most two; remove one first.`;
      break;
    }
    const element = byId("card").content.firstElementChild.cloneNode(true);
    const card = { file, view: "", said: { rotate: 0 }, element, result: null, asked: 0 };
    cards.push(card);
    byId("cards").append(element);
    element.setAttribute("aria-label", `X-ray ${file.name}`);
    element.querySelector(".name").textContent = file.name;
    for (const control of element.querySelectorAll("select, input")) {
      control.addEventListener("change", () => { said(card, control.name, control.value); read(card); });
    }
    for (const button of element.querySelectorAll("[data-turn]")) {
      button.addEventListener("click", () => {
        // The server turns first and mirrors then; of a mirrored picture a turn to the right is one to the left before.
        const by = Number(button.dataset.turn) * (card.said.flip ? -1 : 1);
        card.said.rotate = (card.said.rotate + by + 360) % 360;
        read(card);
      });
    }
    const flip = element.querySelector("[data-flip]");
    flip.addEventListener("click", () => {
      card.said.flip = card.said.flip ? undefined : "horizontal";
      flip.setAttribute("aria-pressed", String(Boolean(card.said.flip)));
      read(card);
    });
    element.querySelector("[data-remove]").addEventListener("click", () => {
      cards.splice(cards.indexOf(card), 1);
      element.remove();
      update();
    });
    await read(card);
  }
  update();
}

function said(card, name, value) {
  if (name === "view") card.view = value;
  else if (value === "") delete card.said[name];
  else card.said[name] = { invert: (text) => text === "true", spacing: Number }[name]?.(value) ?? value;
}

/** Have the server read an X-ray as it would for a CT, and show what it made of it. */
async function read(card) {
  const number = ++card.asked, element = card.element;
  const form = new FormData();
  form.append("xray", card.file);
  if (card.view) form.append("view", card.view);
  form.append("reading", JSON.stringify({ [card.view || "ap"]: card.said }));
  element.classList.add("busy");
  card.result = null;
  update();
  let problem = "";
  try {
    const result = await (await ask("v1/xray", { method: "POST", body: form })).json();
    if (number !== card.asked) return; // a later question is on its way
    card.result = result;
    if (!card.view) return settle(card);
    show(card);
  } catch (error) {
    if (number !== card.asked) return;
    problem = error.message;
  }
  element.classList.remove("busy");
  element.querySelector(".problem").textContent = problem;
  update();
}

/** Settle the view of a new X-ray: what its file says, or what the other one is not; if that is news, read it again. */
function settle(card) {
  const other = cards.find((one) => one !== card && one.view);
  const given = card.result.input.says_view;
  card.view = given || (other && frontal(other.view) ? "lateral" : "ap");
  card.element.querySelector("[name=view]").value = card.view;
  read(card);
}

function show(card) {
  const { element, result } = card, facts = result.input;
  const list = (selector, lines) => element.querySelector(selector).replaceChildren(...lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
  const picture = element.querySelector("figure img");
  picture.src = result.picture;
  picture.alt = `X-ray, ${facts.view}, as the model sees it: dense tissue bright`;
  const pitch = facts.spacing_mm ? `${facts.spacing_mm.map((mm) => mm.toFixed(3)).join(" x ")} mm a pixel` : "pixel pitch not known";
  const values = facts.calibrated ? "line integrals" : "display values";
  element.querySelector("figcaption").textContent =
    `${frontal(facts.view) ? "Patient's right on the left" : "Patient's front on the left"}. ${facts.kind}; ` +
    `${facts.shape[1]} x ${facts.shape[0]}, ${pitch}; ${values}`;
  list(".warnings", result.warnings);
  const notes = [...new Set([...result.assumptions, ...result.stages.flatMap((stage) => stage.notes)])];
  list(".notes", notes);
  element.querySelector("summary").textContent = `How it was read: ${notes.length} ${notes.length === 1 ? "note" : "notes"}, every stage`;
  element.querySelector(".stages").src = result.stages_picture;
}

function update() {
  const ready = cards.length > 0 && cards.every((card) => card.result && card.view);
  const both = cards.length === 2 && ready && frontal(cards[0].view) === frontal(cards[1].view);
  if (both) byId("drop-problem").textContent = "Both X-rays are " + (frontal(cards[0].view) ? "frontal" : "lateral") + ": choose another view for one.";
  else if (byId("drop-problem").textContent.startsWith("Both")) byId("drop-problem").textContent = "";
  byId("start").disabled = !ready || both || job !== "";
  byId("cards").dataset.read = String(ready);
}

byId("files").addEventListener("change", (event) => { addFiles([...event.target.files]); event.target.value = ""; });
for (const name of ["dragenter", "dragover"]) addEventListener(name, (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
for (const name of ["dragleave", "drop"]) addEventListener(name, (event) => { event.preventDefault(); byId("drop").classList.remove("over"); });
addEventListener("drop", (event) => addFiles([...event.dataTransfer.files]));

// ---------------------------------------------------------------------------------------------- a job

function request() {
  const form = new FormData(), reading = {};
  for (const card of cards) {
    form.append(card.view, card.file);
    reading[card.view] = card.said;
  }
  form.append("reading", JSON.stringify(reading));
  for (const [name, id] of [["samples", "samples"], ["seed", "seed"], ["steps", "sampling-steps"], ["consistency", "consistency"]]) {
    form.append(name, byId(id).value);
  }
  for (const name of ["mean", "force"]) form.append(name, byId(name).checked);
  form.append("surface", byId("surface").checked);
  form.append("format", byId("dicom").checked ? "dicom" : "nifti");
  form.append("preview_every", 1);
  return form;
}

async function run() {
  job = "starting";
  update();
  byId("start-problem").textContent = "";
  byId("progress-section").hidden = byId("cancel").hidden = false;
  byId("result").hidden = byId("live").hidden = true;
  byId("stage").textContent = "Sending the X-rays";
  byId("progress").removeAttribute("value");
  document.body.dataset.state = "running";
  try {
    const state = await (await ask("v1/ct", { method: "POST", body: request() })).json();
    job = state.id;
    const done = await watch();
    if (done.state === "done") await collect(done);
    else throw new Error(done.error ? done.error.message : "Cancelled.");
  } catch (error) {
    byId("start-problem").textContent = error.status === 404 ? "Cancelled." : error.message;
    document.body.dataset.state = "failed";
  }
  byId("progress-section").hidden = byId("cancel").hidden = true;
  job = "";
  update();
}

/** Follow a job until it is over; returns its last state. */
async function watch() {
  let drawn = 0;
  for (;;) {
    const state = await (await ask(`v1/ct/${job}`)).json();
    const { done, total } = state.evaluations;
    if (total) byId("progress").value = done / total;
    const queue = state.ahead ? `Waiting: ${state.ahead} before this one` : state.stage;
    byId("stage").textContent = total ? `${queue}: evaluation ${done} of ${total}` : queue;
    if (state.state !== "queued" && state.state !== "running") return state;
    if (done > drawn && state.state === "running") {
      const first = drawn === 0;
      drawn = done;
      const picture = await ask(`v1/ct/${job}/preview.png`).then((answer) => answer.blob()).catch(() => null);
      if (picture) {
        put(byId("live"), picture);
        if (first) byId("live").decode().then(() => byId("progress-section").scrollIntoView({ block: "nearest" })).catch(() => null);
      }
    }
    await wait(LIVE_MS);
  }
}

function put(image, blob) {
  const before = image.src;
  image.src = URL.createObjectURL(blob);
  image.hidden = false;
  if (before.startsWith("blob:")) URL.revokeObjectURL(before);
}

/** Fetch all files of a job, which thereby go from the server, and show them. */
async function collect(state) {
  byId("stage").textContent = "Fetching the CT";
  const files = {};
  for (const name of state.files) files[name] = await (await ask(`v1/ct/${job}/${name}`)).blob();
  const report = JSON.parse(await files["report.json"].text());
  showDownloads(files, state.files);
  fill("warnings", report.warnings);
  fill("unexplained", report.residual.flatMap(areas));
  put(byId("map"), files["unexplained.png"]);
  put(byId("picture"), files["preview.png"]);
  byId("report").textContent = JSON.stringify(report, null, 2);
  byId("result").hidden = false;
  await open(files);
  byId("result").scrollIntoView();
  document.body.dataset.state = "shown";
}

const NOT_COMPARED = "could not be compared with the CT: one view alone, too few rays within the CT, or an X-ray that doesn't go with it";
const areas = ({ view, before }) => !before ? [`${view}: ${NOT_COMPARED}`] : before.unexplained.map((area, index) => {
  const across = `${Math.abs(area.across_mm).toFixed(0)} mm ${area.across_mm < 0 ? "left" : "right"}`;
  const down = `${Math.abs(area.down_mm).toFixed(0)} mm ${area.down_mm < 0 ? "above" : "below"}`;
  return `${view} ${index + 1}: the CT lacks ${area.excess_mm.toFixed(0)} mm of water, compared with the surroundings, over ` +
    `${(area.area_mm2 / 100).toFixed(1)} cm², ${across} and ${down} the middle of the picture`;
});

function fill(id, lines) {
  byId(id).replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
}

const TITLES = {
  "volume.nii.gz": "CT (NIfTI)", "volume_std.nii.gz": "standard deviation", "report.json": "report",
  "preview.png": "picture", "unexplained.png": "unexplained attenuation", "bone.stl": "bones (STL)", "volume.zip": "CT (DICOM)",
};
function showDownloads(files, names) {
  for (const link of byId("downloads").children) URL.revokeObjectURL(link.href);
  byId("downloads").replaceChildren(...names.map((name) => {
    const title = TITLES[name] || `sample ${Number(name.match(/\d+/)) + 1}`;
    return Object.assign(document.createElement("a"), { textContent: title, download: name, href: URL.createObjectURL(files[name]) });
  }));
}

byId("start").addEventListener("click", run);
byId("cancel").addEventListener("click", () => ask(`v1/ct/${job}`, { method: "DELETE" }).catch(() => null));
addEventListener("pagehide", () => { if (job) ask(`v1/ct/${job}`, { method: "DELETE", keepalive: true }).catch(() => null); });

// ---------------------------------------------------------------------------------------------- the viewer

let viewer = null, volumes = {}, mesh = null, mode = "planes", level = [-200, 1600];

async function open(files) {
  byId("viewer-problem").textContent = "";
  volumes = Object.fromEntries(Object.keys(files).filter((name) => name.endsWith(".nii.gz")).map((name) => [name, files[name]]));
  byId("volumes").replaceChildren(...Object.keys(volumes).map((name) => new Option(TITLES[name] || name.replace(".nii.gz", ""), name)));
  byId("volumes").parentElement.hidden = Object.keys(volumes).length < 2;
  document.querySelector("[data-view=bones]").hidden = !files["bone.stl"];
  try {
    viewer ??= await newViewer();
    for (const old of [...viewer.meshes]) viewer.removeMesh(old);
    mesh = null;
    await choose("volume.nii.gz");
    if (files["bone.stl"]) {
      mesh = await niivue.NVMesh.readMesh(await files["bone.stl"].arrayBuffer(), "bone.stl", viewer.gl, 1, new Uint8Array([232, 222, 195, 255]), false);
      viewer.addMesh(mesh);
    }
    look("planes");
  } catch (error) {
    byId("viewer").hidden = true;
    byId("viewer-problem").textContent = `The CT can't be shown here (${error.message || error}); a browser with WebGL 2 is needed. The picture below shows it, and it can be downloaded.`;
  }
}

async function newViewer() {
  const made = new niivue.Niivue({
    isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: 0, dragAndDropEnabled: false, logLevel: "error",
    backColor: [0, 0, 0, 1], crosshairColor: [1, 0.84, 0.31, 0.6], crosshairWidth: 1, crosshairWidthUnit: "mm", isCornerOrientationText: true, fontColor: [1, 0.84, 0.31, 1], loadingText: "",
  });
  await made.attachToCanvas(byId("canvas"));
  if (!made.gl) throw new Error("no WebGL 2");
  made.onLocationChange = ({ values, mm }) => {
    const place = [...mm].slice(0, 3).map((value) => value.toFixed(1)).join(", ");
    byId("cursor").textContent = `${Math.round(values[0].value)} HU at (${place}) mm`;
  };
  return made;
}

const deviation = () => byId("volumes").value.includes("_std");

/** Centre and width of a standard deviation's window, as the preview has it: to the 99.5th percentile, up to 10 HU more. */
function deviationWindow({ img, hdr }) {
  const sorted = Float32Array.from(img).sort(), high = sorted[Math.floor(0.995 * (sorted.length - 1))] * (hdr.scl_slope || 1);
  const top = Math.max(10, 10 * Math.ceil(high / 10));
  return [top / 2, top];
}

async function choose(name) {
  while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
  await viewer.loadFromArrayBuffer(await volumes[name].arrayBuffer(), name);
  level = deviation() ? deviationWindow(viewer.volumes[0]) : Object.values(info.windows_hu)[0];
  project();
  look(mode); // a new volume comes with its own opacity, and new projections are empty
}

/** Show planes, projections or bones. */
function look(what) {
  mode = what;
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === what));
  byId("viewer").hidden = what === "projection";
  byId("projections").hidden = what !== "projection";
  if (mesh) mesh.visible = what === "bones";
  viewer.setOpacity(0, what === "bones" ? 0 : 1);
  viewer.opts.show3Dcrosshair = false;
  viewer.setSliceType(what === "bones" ? viewer.sliceTypeRender : viewer.sliceTypeMultiplanar);
  if (what === "bones") viewer.setRenderAzimuthElevation(160, 10);
  const bone = what === "projection" && !deviation();
  setWindow(...(bone ? [(BONE[0] + BONE[1]) / 2, BONE[1] - BONE[0]] : level), !bone);
}

function setWindow(centre, width, keep = true) {
  if (keep) level = [centre, width];
  byId("centre").value = centre;
  byId("width").value = width;
  byId("centre-value").textContent = `${centre} HU`;
  byId("width-value").textContent = `${width} HU`;
  for (const button of byId("presets").children) button.setAttribute("aria-pressed", String(button.dataset.window === `${centre},${width}`));
  if (!viewer || !viewer.volumes.length) return;
  viewer.volumes[0].cal_min = centre - width / 2;
  viewer.volumes[0].cal_max = centre + width / 2;
  viewer.updateGLVolume();
  drawProjections(centre - width / 2, centre + width / 2);
}

function addPreset(name, [centre, width]) {
  const button = Object.assign(document.createElement("button"), { textContent: name, type: "button" });
  button.dataset.window = `${centre},${width}`;
  button.addEventListener("click", () => setWindow(centre, width, mode !== "projection"));
  byId("presets").append(button);
}

// The brightest voxel along each axis. Voxels lie x first, and indices grow to the patient's right, front and head.
const PROJECTIONS = [
  { name: "coronal", across: 1, column: 0, row: 2, ends: "RL" },
  { name: "sagittal", across: 0, column: 1, row: 2, ends: "AP" },
  { name: "axial", across: 2, column: 0, row: 1, ends: "RL" },
];

function project() {
  const { img, hdr } = viewer.volumes[0], size = [...hdr.dims].slice(1, 4), step = [...hdr.pixDims].slice(1, 4);
  const stride = [1, size[0], size[0] * size[1]], slope = hdr.scl_slope || 1, offset = hdr.scl_inter || 0;
  byId("projections").replaceChildren(...PROJECTIONS.map((plane) => {
    const columns = size[plane.column], rows = size[plane.row], brightest = new Float32Array(columns * rows);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        let at = r * stride[plane.row] + c * stride[plane.column], most = -Infinity;
        for (let k = 0; k < size[plane.across]; k++, at += stride[plane.across]) if (img[at] > most) most = img[at];
        brightest[(rows - 1 - r) * columns + columns - 1 - c] = most * slope + offset;
      }
    }
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    Object.assign(canvas, { width: columns, height: rows });
    canvas.style.aspectRatio = `${columns * step[plane.column]} / ${rows * step[plane.row]}`;
    canvas.setAttribute("aria-label", `${plane.name} projection of the brightest voxels`);
    canvas.setAttribute("role", "img");
    plane.drawn = { canvas, brightest };
    const letters = [...plane.ends].map((letter, side) => Object.assign(document.createElement("span"), { textContent: letter, className: side ? "right" : "left" }));
    figure.append(canvas, ...letters);
    return figure;
  }));
}

function drawProjections(low, high) {
  for (const { drawn } of PROJECTIONS) {
    if (!drawn) continue;
    const context = drawn.canvas.getContext("2d"), image = context.createImageData(drawn.canvas.width, drawn.canvas.height);
    drawn.brightest.forEach((hu, k) => {
      image.data.fill(((hu - low) / (high - low)) * 255, 4 * k, 4 * k + 3);
      image.data[4 * k + 3] = 255;
    });
    context.putImageData(image, 0, 0);
  }
}

for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => look(button.dataset.view));
byId("volumes").addEventListener("change", (event) => choose(event.target.value));
for (const id of ["centre", "width"]) byId(id).addEventListener("input", () => setWindow(+byId("centre").value, +byId("width").value, mode !== "projection"));

// The patient's right is on the left, so an arrow to the left is one along x. Caught before NiiVue has its own way with it.
const STEPS = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1], PageUp: [0, 1, 0], PageDown: [0, -1, 0] };
const TURN_DEG = 10;
byId("viewer").addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step || !viewer) return;
  event.preventDefault();
  event.stopPropagation();
  if (mode === "planes") return viewer.moveCrosshairInVox(...step);
  const { renderAzimuth, renderElevation } = viewer.scene;
  viewer.setRenderAzimuthElevation(renderAzimuth + TURN_DEG * step[0], renderElevation + TURN_DEG * step[2]);
}, { capture: true });

document.body.dataset.state = "loading";
enter();
