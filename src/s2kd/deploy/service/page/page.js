// The page of a student: frames, forecast, truth and error on maps; a cell over time.
const element = (id) => document.getElementById(id);
const JSON_TYPE = "application/json";
const VIRIDIS = ramp(["440154", "414487", "2a788e", "22a884", "7ad151", "fde725"]);
const DIVERGING = ramp(["2166ac", "92c5de", "f7f7f7", "f4a582", "b2182b"]);
const state = { step: 1, row: 0, column: 0 }; // step 0: the last input; 1: the first lead
let model, frames, forecast, timer, opened;

// --- the service ---------------------------------------------------------------------------------

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { Accept: JSON_TYPE, ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  element("login").hidden = answer.status !== 401;
  let detail = await answer.text();
  try { detail = JSON.parse(detail).detail; } catch { /* not from the service itself */ }
  throw new Error(detail || `the server answers ${answer.status}`);
}

async function attempt(task) {
  element("problem").textContent = "";
  document.body.setAttribute("aria-busy", "true");
  try { await task(); } catch (error) { element("problem").textContent = error.message; }
  document.body.removeAttribute("aria-busy");
}

function inputFrames() { // the frames that end with the chosen start, as the service takes them
  const first = state.start - model.past + 1;
  const cut = (array) => (array.dims[0] === "time"
    ? { ...array, data: array.data.slice(first, state.start + 1) } : array);
  const all = (arrays) => Object.fromEntries(Object.entries(arrays).map(([k, v]) => [k, cut(v)]));
  return JSON.stringify({ coords: all(frames.coords), data_vars: all(frames.data_vars), attrs: {} });
}

const predict = (accept) => ask(`forecast?steps=${element("steps").value}&fill=${element("fill").checked}`,
  { method: "POST", body: inputFrames(), headers: { Accept: accept } });

async function show(answer) {
  frames = await answer.json();
  const times = frames.coords.time.data;
  const options = times.map((time, i) => new Option(date(time), i)).slice(model.past - 1);
  element("start").replaceChildren(...options.reverse());
  state.start = times.length - 1;
  await update();
}

async function update() {
  forecast = await (await predict(JSON_TYPE)).json();
  const slider = element("step");
  [slider.min, slider.max] = [1 - model.past, forecast.coords.lead_time.data.length];
  state.step = Math.min(Math.max(state.step, slider.min), slider.max);
  element("notice").textContent = forecast.attrs.comment ?? "";
  element("hint").hidden = true;
  element("view").hidden = false;
  draw();
}

function open(file) {
  opened = file;
  return attempt(async () => show(await ask(`frames?fill=${element("fill").checked}`,
    { method: "POST", body: file })));
}

async function download(kind) {
  const answer = await predict(kind);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = answer.headers.get("Content-Disposition").match(/"(.+)"/)[1];
  link.click();
  URL.revokeObjectURL(link.href);
}

// --- values --------------------------------------------------------------------------------------

const date = (text) => String(text).replace("T", " ").replace(/(:00)?:00(\.0+)?$/, "$1");
const channel = () => model.grid.channels[element("channel").value];
const unit = () => model.grid.units[element("channel").value].replace(/^1$/, "");
const truthAt = (step) => frames.data_vars[channel()].data[state.start + step];
const forecastAt = (step) => Object.entries(forecast.data_vars)
  .find(([name, array]) => (array.attrs.channel ?? name) === channel())[1].data[0][step - 1];
const fieldAt = (step) => (step > 0 ? forecastAt(step) : truthAt(step));
const timeAt = (step) => date(step > 0 ? forecast.coords.valid_time.data[0][step - 1]
  : frames.coords.time.data[state.start + step]);
const steps = () => Array.from({ length: element("step").max - element("step").min + 1 },
  (_, i) => Number(element("step").min) + i);
const number = (value, sign) => (value === null || value === undefined || Number.isNaN(value) ? "–"
  : (sign && value > 0 ? "+" : "") + value.toPrecision(4));
const hours = (step) => Number((step * model.grid.step_seconds / 3600).toPrecision(4));
const less = (a, b) => a.map((row, i) => row.map((value, j) => (
  value === null || b[i][j] === null ? null : value - b[i][j])));

function extent(fields) {
  let [low, high] = [Infinity, -Infinity];
  for (const field of fields) for (const row of field) for (const value of row) {
    if (value !== null && value < low) low = value;
    if (value !== null && value > high) high = value;
  }
  return low < high ? [low, high] : [low - 1, low + 1];
}

function rmse(error) {
  const values = error.flat().filter((value) => value !== null);
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
}

// --- drawing -------------------------------------------------------------------------------------

function ramp(colours) { // 256 colours (red, green, blue, opacity) between those given
  return Array.from({ length: 256 }, (_, i) => {
    const at = i / 255 * (colours.length - 1);
    const [low, high] = [colours[Math.floor(at)], colours[Math.ceil(at)]];
    return [...[0, 2, 4].map((j) => {
      const [a, b] = [low, high].map((hex) => parseInt(hex.slice(j, j + 2), 16));
      return a + (b - a) * (at % 1);
    }), 255];
  });
}

function paint(canvas, field, [low, high], scale) {
  [canvas.height, canvas.width] = [field.length, field[0].length];
  const image = new ImageData(canvas.width, canvas.height);
  field.flat().forEach((value, i) => {
    const at = Math.round(255 * Math.min(Math.max((value - low) / (high - low), 0), 1));
    if (value !== null) image.data.set(scale[at], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function map(title, field, range, scale, signed) {
  const figure = document.createElement("figure");
  const [height, width] = [field.length, field[0].length];
  figure.innerHTML = `<figcaption><b></b><span></span></figcaption>
    <div class="map" tabindex="0" role="img"><canvas></canvas><div class="mark"></div></div>
    <div class="scale"><span></span><canvas></canvas><span></span></div>`;
  const [caption, value] = figure.querySelector("figcaption").children;
  caption.textContent = title;
  value.textContent = `${number(field[state.row][state.column], signed)} ${unit()}`;
  const area = figure.querySelector(".map");
  area.style.aspectRatio = `${width} / ${height}`;
  area.setAttribute("aria-label", `${title} of ${channel()}; arrow keys choose a cell`);
  paint(area.firstChild, field, range, scale);
  Object.assign(figure.querySelector(".mark").style, {
    left: `${100 * state.column / width}%`, top: `${100 * state.row / height}%`,
    width: `${100 / width}%`, height: `${100 / height}%`,
  });
  const [low, bar, high] = figure.querySelector(".scale").children;
  [low.textContent, high.textContent] = [number(range[0], signed), `${number(range[1], signed)} ${unit()}`];
  paint(bar, [Array.from({ length: 128 }, (_, i) => i / 127)], [0, 1], scale);
  area.onclick = (event) => {
    const box = area.getBoundingClientRect();
    choose(Math.floor((event.clientY - box.top) / box.height * height),
      Math.floor((event.clientX - box.left) / box.width * width));
  };
  area.onkeydown = (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    choose(state.row + move[0], state.column + move[1], title);
  };
  return figure;
}

function choose(row, column) {
  state.row = Math.min(Math.max(row, 0), model.grid.height - 1);
  state.column = Math.min(Math.max(column, 0), model.grid.width - 1);
  draw();
}

function draw() {
  const { step } = state;
  const focused = [...element("maps").children].findIndex((f) => f.contains(document.activeElement));
  const future = steps().filter((s) => s > 0);
  const inputs = steps().filter((s) => s <= 0 || truthAt(s)).map(truthAt);
  const range = extent([...inputs, ...future.map(forecastAt)]);
  const maps = [map(step > 0 ? "Forecast" : "Input", fieldAt(step), range, VIRIDIS)];
  element("score").textContent = "";
  if (step > 0 && truthAt(step)) {
    const error = less(forecastAt(step), truthAt(step));
    const errors = future.filter(truthAt).map((s) => less(forecastAt(s), truthAt(s)));
    const largest = Math.max(...extent(errors).map(Math.abs));
    maps.push(map("Observed", truthAt(step), range, VIRIDIS));
    maps.push(map("Error", error, [-largest, largest], DIVERGING, true));
    element("score").textContent = `RMSE of the map ${number(rmse(error))} ${unit()}, of persistence `
      + `${number(rmse(less(truthAt(0), truthAt(step))))} ${unit()}`;
  }
  element("maps").replaceChildren(...maps);
  if (focused >= 0) maps[Math.min(focused, maps.length - 1)].querySelector(".map").focus();
  element("step").value = step;
  const lead = step > 0 ? `+${hours(step)} h` : "input";
  element("when").textContent = `${timeAt(step)} (${lead})`;
  element("step").setAttribute("aria-valuetext", element("when").textContent);
  series();
}

function series() {
  const { row, column, step } = state;
  const at = (field) => (field ? field[row][column] : null);
  const all = steps();
  const lines = {
    truth: all.map((s) => at(truthAt(s))),
    persistence: all.map((s) => (s >= 0 ? at(truthAt(0)) : null)),
    forecast: all.map((s) => (s > 0 ? at(forecastAt(s)) : s === 0 ? at(truthAt(0)) : null)),
  };
  const { latitude, longitude } = model.grid;
  const place = latitude ? `${latitude[row]}°, ${longitude[column]}°` : `row ${row}, column ${column}`;
  element("cell").textContent = `${channel()} at ${place}, ${timeAt(step)}: `
    + ["forecast", "truth", "persistence"].map((name) => [name, lines[name][step - all[0]]])
      .filter(([, value]) => value !== null)
      .map(([name, value]) => `${name === "truth" ? "observed" : name} ${number(value)} ${unit()}`).join(", ");
  const [width, height, margin] = [element("series").clientWidth || 600, 240, 58];
  const [low, high] = extent([Object.values(lines).flat()].map((values) => [values]));
  const x = (s) => margin + (s - all[0]) / (all.length - 1 || 1) * (width - margin - 16);
  const y = (value) => 12 + (high - value) / (high - low) * (height - 44);
  const parts = [low, (low + high) / 2, high].map((v) => `<line x1="${margin}" x2="${width}" y1="${y(v)}"
    y2="${y(v)}"/><text x="${margin - 6}" y="${y(v) + 4}" text-anchor="end">${number(v)}</text>`);
  parts.push(`<line x1="${x(step)}" x2="${x(step)}" y1="12" y2="${height - 32}"/>`);
  for (const [name, values] of Object.entries(lines)) {
    const points = values.map((v, i) => [x(all[i]), v === null ? null : y(v)]).filter((p) => p[1] !== null);
    parts.push(`<path class="${name}" d="M${points.map((p) => p.map((v) => v.toFixed(1))).join("L")}"/>`);
    if (name !== "persistence") parts.push(...points.map(([a, b]) => `<circle class="${name}" cx="${a}" cy="${b}" r="3"/>`));
  }
  for (const [s, anchor] of [[all[0], "start"], [all.at(-1), "end"]]) {
    parts.push(`<text x="${x(s)}" y="${height - 10}" text-anchor="${anchor}">${timeAt(s)}</text>`);
  }
  element("series").innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img"
    aria-label="Time series of the chosen cell">${parts.join("")}</svg>`;
}

// --- what a person does --------------------------------------------------------------------------

function play(on) {
  clearInterval(timer);
  element("play").textContent = on ? "Stop" : "Play";
  element("play").setAttribute("aria-pressed", on);
  if (on) timer = setInterval(() => {
    state.step = state.step < element("step").max ? state.step + 1 : Number(element("step").min);
    draw();
  }, 600);
  return on;
}

async function begin() {
  model = await (await ask("model")).json();
  element("login").hidden = true;
  const { channels, units, height, width } = model.grid;
  document.title = element("name").textContent = `Forecast by ${model.student}`;
  element("facts").textContent = `${channels.map((c, i) => `${c} [${units[i] || "1"}]`).join(", ")} · `
    + `${height} × ${width} cells · ${model.past} frames in, ${model.lead} out, ${hours(1)} h apart`;
  element("channel").replaceChildren(...channels.map((name, i) => new Option(name, i)));
  Object.assign(element("steps"), { value: model.lead, max: model.limits.steps });
  [state.row, state.column] = [Math.floor(height / 2), Math.floor(width / 2)];
  const answer = await ask("frames").catch((error) => {
    if (!/--latest/.test(error.message)) throw error;
  });
  if (answer) await show(answer);
}

element("login").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", element("token").value);
  attempt(begin);
};
element("file").onchange = ({ target }) => {
  const [file] = target.files;
  if (file) open(file).then(() => { target.value = ""; });
};
element("fill").onchange = () => opened && open(opened);
element("channel").onchange = () => forecast && draw();
element("start").onchange = (event) => { state.start = Number(event.target.value); attempt(update); };
element("steps").onchange = () => frames && attempt(update);
element("download").onchange = (event) => {
  const kind = event.target.value;
  event.target.value = "";
  if (frames && kind) attempt(() => download(kind));
};
element("step").oninput = (event) => { play(false); state.step = Number(event.target.value); draw(); };
element("play").onclick = () => play(element("play").getAttribute("aria-pressed") !== "true");
document.ondragover = (event) => { event.preventDefault(); document.body.classList.add("dragging"); };
document.ondragleave = () => document.body.classList.remove("dragging");
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
};
window.onresize = () => forecast && series();
attempt(begin);
