"use strict";
// Tiles exist only while they are in or near view, so ten thousand episodes cost as much as fifty.
const TOKEN = document.querySelector("meta[name=token]").content;
const GAP = 14, CAPTION = 58, LEAST = 230;
const $ = (id) => document.getElementById(id);
const state = { all: [], shown: [], filter: "all", at: 0, tab: "episodes", tiles: new Map(), stamp: new Map(), seeds: [], draw: null, ticket: 0 };
let queue = Promise.resolve();

async function ask(path, data) {
  const options = { headers: { "X-Token": TOKEN } };
  if (data) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(data);
  }
  const reply = await fetch(path, options), body = await reply.json();
  if (!reply.ok) throw new Error(body.error || reply.statusText);
  return body;
}

function toast(text, bad) {
  const box = $("toast");
  box.textContent = text;
  box.className = bad ? "on bad" : "on";
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { box.className = ""; }, bad ? 6000 : 1600);
}

const episodeOf = ([episode, score, kept, reason, target, decision, close]) =>
  ({ episode, score, kept, reason, target, decision, close });
const reasonOf = (item) => item.reason.split(":")[0];
const picture = (item) => state.tab === "gripper"
  ? `/api/frame/${item.episode}/${item.close}?token=${TOKEN}`
  : `/api/tile/${item.episode}?token=${TOKEN}&v=${state.stamp.get(item.episode) || 0}`;

// --- filters

function filters() {
  const reasons = new Map();
  for (const item of state.all) if (!item.kept) reasons.set(reasonOf(item), (reasons.get(reasonOf(item)) || 0) + 1);
  const count = (test) => state.all.filter(test).length;
  return [
    ["all", "All", state.all.length], ["new", "Not looked at", count((item) => !item.decision)],
    ["kept", "Kept", count((item) => item.kept)], ["out", "Discarded", count((item) => !item.kept)],
    ...[...reasons].sort().map(([reason, number]) => ["= " + reason, reason, number]),
  ];
}

const fits = (item, name) => name === "all" || (name === "new" && !item.decision) || (name === "kept" && item.kept)
  || (name === "out" && !item.kept) || (name.startsWith("= ") && !item.kept && reasonOf(item) === name.slice(2));

function drawFilters() {
  const list = state.tab === "gripper" ? [] : filters();
  $("filters").replaceChildren(...list.map(([name, label, number]) => {
    const button = document.createElement("button"), small = document.createElement("em");
    button.textContent = label;
    small.textContent = number;
    button.append(small);
    button.className = name === state.filter ? "on" : "";
    button.onclick = () => choose(name);
    return button;
  }));
  const seen = state.all.filter((item) => item.decision).length;
  $("count").textContent = `${seen} of ${state.all.length} looked at`;
  $("progress").firstChild.style.width = `${(100 * seen) / Math.max(1, state.all.length)}%`;
}

function choose(name) {
  state.filter = name;
  state.shown = state.tab === "gripper"
    ? state.all.filter((item) => item.close !== null).sort((a, b) => a.episode - b.episode)
    : state.all.filter((item) => fits(item, name));
  state.at = 0;
  $("sheet").scrollTop = 0;
  drawFilters();
  refresh();
}

function nextFilter(step) {
  const names = filters().map(([name]) => name);
  choose(names[(names.indexOf(state.filter) + step + names.length) % names.length]);
}

// --- contact sheet

function grid() {
  const width = $("sheet").clientWidth - 40, columns = Math.max(1, Math.floor((width + GAP) / (LEAST + GAP)));
  const side = Math.floor((width - GAP * (columns - 1)) / columns);
  return { columns, side, height: side + CAPTION + GAP };
}

function refresh() {
  for (const tile of state.tiles.values()) tile.remove();
  state.tiles.clear();
  $("space").replaceChildren();
  if (!state.shown.length) {
    const note = document.createElement("div");
    note.className = "empty";
    note.textContent = state.tab === "gripper" ? "No closing frames: this sidecar does not say when grippers close." : "No episode here.";
    $("space").append(note);
  }
  place();
  settle();
}

function place() {
  const { columns, side, height } = grid(), sheet = $("sheet");
  $("space").style.height = `${Math.ceil(state.shown.length / columns) * height}px`;
  const first = Math.max(0, Math.floor(sheet.scrollTop / height) - 1) * columns;
  const last = Math.min(state.shown.length, Math.ceil((sheet.scrollTop + sheet.clientHeight) / height + 1) * columns);
  for (const [index, tile] of state.tiles) if (index < first || index >= last) { tile.remove(); state.tiles.delete(index); }
  for (let index = first; index < last; index++) {
    let tile = state.tiles.get(index);
    if (!tile) { tile = make(index); state.tiles.set(index, tile); $("space").append(tile); }
    tile.style.cssText = `left:${(index % columns) * (side + GAP)}px;top:${Math.floor(index / columns) * height}px;width:${side}px;height:${height - GAP}px`;
  }
}

function make(index) {
  const item = state.shown[index], tile = document.createElement("div");
  tile.innerHTML = '<div class="frame"><img alt=""></div><div class="caption"><b></b><span><i></i><i></i></span></div>';
  const image = tile.querySelector("img");
  image.onerror = () => { image.parentNode.textContent = "this frame cannot be read"; };
  image.src = picture(item);
  tile.querySelector("b").textContent = item.target || "no target";
  const [left, right] = tile.querySelectorAll("i");
  left.textContent = `episode ${item.episode}`;
  right.textContent = `score ${item.score.toFixed(2)}`;
  const words = { keep: "kept", reject: "rejected", redraw: "redrawn" };
  const seed = state.tab === "gripper" && state.seeds.some((other) => other.episode === item.episode);
  const text = state.tab === "gripper" ? (seed ? "seed" : "") : words[item.decision] || (item.kept ? "" : item.reason || "discarded");
  if (text) {
    const badge = document.createElement("div");
    badge.className = "badge";
    badge.textContent = text;
    tile.firstChild.append(badge);
  }
  const plain = state.tab === "gripper";
  tile.className = ["tile", plain ? "" : item.decision || "", plain || item.kept ? "" : "out", index === state.at ? "at" : ""].join(" ");
  tile.onclick = () => { go(index); if (plain) open(); };
  tile.ondblclick = () => { if (!plain) open(); };
  return tile;
}

function go(index) {
  if (!state.shown.length) return;
  state.tiles.get(state.at)?.classList.remove("at");
  state.at = Math.min(state.shown.length - 1, Math.max(0, index));
  const { columns, height } = grid(), top = Math.floor(state.at / columns) * height, sheet = $("sheet");
  if (top < sheet.scrollTop) sheet.scrollTop = top;
  else if (top + height > sheet.scrollTop + sheet.clientHeight) sheet.scrollTop = top + height - sheet.clientHeight;
  place();
  state.tiles.get(state.at)?.classList.add("at");
  settle();
}

function settle() {
  clearTimeout(settle.timer);
  const item = state.shown[state.at];
  $("instruction").textContent = "";
  if (item) settle.timer = setTimeout(async () => {
    try {
      const detail = await ask(`/api/episode/${item.episode}`);
      if (state.shown[state.at] === item) $("instruction").textContent = `“${detail.instruction}”${item.reason ? " · " + item.reason : ""}`;
    } catch (error) { toast(error.message, true); }
  }, 120);
}

// --- decisions: one after the other, in the order of the keys

function update(line) {
  const fresh = episodeOf(line), item = state.all.find((other) => other.episode === fresh.episode);
  Object.assign(item, fresh);
  state.stamp.set(item.episode, (state.stamp.get(item.episode) || 0) + 1);
  const index = state.shown.indexOf(item);
  if (state.tiles.has(index)) { state.tiles.get(index).remove(); state.tiles.delete(index); place(); }
  drawFilters();
  return item;
}

function decide(what, more) {
  const item = state.shown[state.at];
  if (!item) return;
  go(state.at + 1);
  queue = queue.then(async () => {
    try {
      update(await ask("/api/decide", { episode: item.episode, what, ...more }));
      toast(`Episode ${item.episode}: ${{ keep: "kept", reject: "rejected", redraw: "redrawn" }[what]}`);
    } catch (error) { toast(error.message, true); }
  });
}

function undo() {
  queue = queue.then(async () => {
    try {
      const line = await ask("/api/undo", {});
      if (!line) return toast("Nothing to undo.");
      const index = state.shown.indexOf(update(line));
      if (index >= 0) go(index);
      toast(`Episode ${line[0]}: undone`);
    } catch (error) { toast(error.message, true); }
  });
}

// --- redrawing, and clicking the gripper

async function open() {
  const item = state.shown[state.at];
  if (!item) return;
  try {
    const gripper = state.tab === "gripper", detail = await ask(`/api/episode/${item.episode}`);
    const seed = gripper && state.seeds.find((other) => other.episode === item.episode);
    state.draw = { item, gripper, points: seed && seed.point ? [[...seed.point, 1]] : [], box: null, mask: [], old: gripper ? [] : detail.mask, region: gripper ? null : detail.region };
    $("picture").src = `/api/frame/${item.episode}/${gripper ? item.close : detail.frame}?token=${TOKEN}`;
    $("drawn").textContent = gripper ? `Where is the gripper? Episode ${item.episode}` : `Redraw “${item.target || "target"}” · episode ${item.episode}`;
    $("hint").textContent = gripper ? "Click on the gripper, Enter saves, Esc leaves. Once for each robot or camera position is enough."
      : "Left click: on the object · right click: beside it · drag: box · Enter: accept · Backspace: start again · Esc: leave";
    $("drawing").hidden = false;
    paint();
  } catch (error) { toast(error.message, true); }
}

function shape(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const outline = (polygons) => polygons.map((polygon) => "M" + polygon.map(([x, y]) => `${x} ${y}`).join("L") + "Z").join("");
const rectangle = (kind, [x0, y0, x1, y1]) => shape("rect", { class: kind, x: x0, y: y0, width: x1 - x0, height: y1 - y0 });

function paint() {
  const { points, box, mask, old, region } = state.draw, parts = [];
  if (region) parts.push(rectangle("region", region));
  parts.push(shape("path", { class: mask.length ? "mask" : "old", d: outline(mask.length ? mask : old) }));
  if (box) parts.push(rectangle("box", box));
  for (const [x, y, positive] of points) {
    const d = `M${x} ${y}h0`;
    parts.push(shape("path", { class: "dot", d }), shape("path", { class: positive ? "dot in" : "dot not", d }));
  }
  $("overlay").replaceChildren(...parts);
}

async function preview() {
  paint();
  const draw = state.draw, ticket = ++state.ticket;
  if (draw.gripper || (!draw.box && !draw.points.some(([, , positive]) => positive))) return;
  try {
    const found = await ask("/api/preview", { episode: draw.item.episode, points: draw.points, box: draw.box });
    if (state.draw === draw && ticket === state.ticket) { draw.mask = found.mask; paint(); }
  } catch (error) {
    if (state.draw === draw && ticket === state.ticket) { draw.mask = []; paint(); }
    toast(error.message, true);
  }
}

function where(event) {
  const area = $("picture").getBoundingClientRect(), clip = (value) => Math.min(1, Math.max(0, value));
  return [clip((event.clientX - area.left) / area.width), clip((event.clientY - area.top) / area.height)];
}

let pressed = null;
$("stage").oncontextmenu = (event) => event.preventDefault();
$("stage").onpointerdown = (event) => { pressed = { from: where(event), button: event.button, dragged: false }; $("stage").setPointerCapture(event.pointerId); };
$("stage").onpointermove = (event) => {
  if (!pressed || pressed.button !== 0 || state.draw.gripper) return;
  const [x, y] = where(event), [a, b] = pressed.from;
  pressed.dragged ||= Math.hypot(x - a, y - b) > 0.02;
  if (pressed.dragged) { state.draw.box = [Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)]; paint(); }
};
$("stage").onpointerup = () => {
  if (!pressed || !state.draw) return;
  const point = [...pressed.from, pressed.button === 2 ? 0 : 1];
  if (state.draw.gripper) state.draw.points = [[...pressed.from, 1]];
  else if (!pressed.dragged) state.draw.points.push(point);
  else if (state.draw.box[0] === state.draw.box[2] || state.draw.box[1] === state.draw.box[3]) state.draw.box = null;
  pressed = null;
  preview();
};

function close() { $("drawing").hidden = true; state.draw = null; pressed = null; }

async function accept() {
  const { item, gripper, points, box } = state.draw;
  if (!box && !points.some(([, , positive]) => positive)) return toast("Click on it first.", true);
  close();
  if (!gripper) return decide("redraw", { points, box });
  try {
    state.seeds = await ask("/api/seeds", { episode: item.episode, point: points[0].slice(0, 2) });
    toast(`Saved to seeds.yaml: ${state.seeds.length} ${state.seeds.length > 1 ? "seeds" : "seed"}`);
    refresh();
  } catch (error) { toast(error.message, true); }
}

// --- keys

function tab(name) {
  state.tab = name;
  document.querySelector(".keys").style.visibility = name === "gripper" ? "hidden" : "";
  for (const button of $("tabs").children) button.className = button.dataset.tab === name ? "on" : "";
  choose(state.filter);
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const name = event.key;
  if (!$("help").hidden) { $("help").hidden = true; return event.preventDefault(); }
  if (state.draw) {
    if (name === "Escape") close();
    else if (name === "Enter") accept();
    else if (name === "Backspace") { Object.assign(state.draw, { points: [], box: null, mask: [] }); state.ticket++; paint(); }
    else return;
    return event.preventDefault();
  }
  const { columns, height } = grid(), page = columns * Math.max(1, Math.floor($("sheet").clientHeight / height));
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
  const episodes = state.tab === "episodes";
  if (name in moves) go(state.at + moves[name]);
  else if (name === "k" && episodes) decide("keep");
  else if (name === "r" && episodes) decide("reject");
  else if (name === "d" || name === "Enter") open();
  else if (name === "u" && episodes) undo();
  else if (name === "f" && episodes) nextFilter(1);
  else if (name === "F" && episodes) nextFilter(-1);
  else if (name === "g") tab(episodes ? "gripper" : "episodes");
  else if (name === "?") $("help").hidden = false;
  else return;
  event.preventDefault();
}

async function start() {
  document.addEventListener("keydown", key);
  $("sheet").addEventListener("scroll", place);
  window.addEventListener("resize", place);
  $("helper").onclick = () => { $("help").hidden = false; };
  $("help").onclick = () => { $("help").hidden = true; };
  for (const button of $("tabs").children) button.onclick = () => tab(button.dataset.tab);
  const data = await ask("/api/episodes");
  state.all = data.episodes.map(episodeOf);
  state.seeds = await ask("/api/seeds").catch((error) => { toast(error.message, true); return []; });
  $("about").textContent = `${data.dataset} · ${data.camera} · as ${data.who}`;
  choose("all");
  document.body.dataset.ready = "yes";
}

start().catch((error) => toast(error.message, true));
