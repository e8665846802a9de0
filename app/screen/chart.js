// A figure of plotly in `.figure`. Plotly.react draws only what differs from the figure before. Keys move its slider.
// Where the app stands: its own script lies there, also behind a proxy that adds a path of which the server knows nothing.
const root = () => document.querySelector('script[src*="static/js/"]')?.src.replace(/static\/js\/.*/, "") ?? location.href;
const plotly = (url) => (window.toydiffPlotly ??= new Promise((done, failed) => {
  const script = document.createElement("script");
  script.src = new URL(url, root());
  // plotly rejects, without a reason, what an animation that begins interrupts
  window.addEventListener("unhandledrejection", (event) => event.reason === undefined && event.preventDefault());
  script.onload = () => done(window.Plotly);
  script.onerror = () => {
    window.toydiffPlotly = undefined; // the next figure tries again
    script.remove();
    failed(new Error(`plotly.js is not at ${url}`));
  };
  document.head.append(script);
}));

const SCREEN = { width: 448, height: 512, path: "M0 32h160v64H64v96H0zM288 32h160v160h-64V96h-96zM0 320h64v96h96v64H0zM384 320h64v160H288v-64h96z" };
const whole = { name: "whole screen", title: "Whole screen", icon: SCREEN, click: (place) => (document.fullscreenElement ? document.exitFullscreen() : place.requestFullscreen()) };
const BUSY = "input, textarea, select, [role=slider], [role=tab], [contenteditable=true], canvas, .mode"; // what has a use for these keys itself
const PRESSED = "button, a, summary, [role=button]"; // and for the space bar

// A box in which something was chosen keeps the focus: once its list is closed, the keys are the figure's again.
const busy = (target) => {
  const box = target.closest?.("[role=combobox], [data-baseweb=select] input");
  return box ? box.getAttribute("aria-expanded") === "true" : target.closest?.(BUSY);
};

const still = { mode: "immediate", frame: { duration: 0, redraw: false }, transition: { duration: 0 } };
function play(Plotly, place) { // or pause
  if (place._transitionData?._animationRaf) return Plotly.animate(place, [null], still);
  const { sliders: [slider], updatemenus: [menu] } = place.layout, [frames, how] = menu.buttons[0].args, next = (slider.active ?? 0) + 1;
  return Plotly.animate(place, frames.slice(next < frames.length ? next : 0), how);
}

function keys(Plotly, place, event) {
  if (event.key === "Enter" && event.target === place) place.turn?.(event.shiftKey ? -1 : 1);
  const by = { ArrowLeft: -1, ArrowRight: 1, Home: -1e6, End: 1e6 }[event.key], slider = place.layout?.sliders?.[0];
  if (!slider || event.ctrlKey || event.metaKey || event.altKey || busy(event.target)) return;
  if (event.key === " " && !event.target.closest?.(PRESSED)) event.preventDefault(), play(Plotly, place);
  if (!by) return;
  event.preventDefault();
  const next = Math.min(Math.max((slider.active ?? 0) + by, 0), slider.steps.length - 1);
  Plotly.animate(place, ...slider.steps[next].args);
}

// The figure as a picture: without what only moves on a page, below its claim, above the address of its state.
function picture(place, { file, title, address }) {
  const { width, height } = place.getBoundingClientRect(), size = place.layout.font.size, [slider] = place.layout.sliders ?? [], above = 1.8 * size;
  const layout = structuredClone({ ...place.layout, sliders: [], updatemenus: [], width, height }), { margin, legend } = layout;
  layout.title = { text: `<b>${title}</b>`, x: 0.01, xanchor: "left", y: 1, yref: "container", yanchor: "top", pad: { t: size / 2 }, font: { size: 1.2 * size } };
  margin.t += above;
  if (legend?.yref === "container") legend.y -= above / height;
  if (slider) margin.b = Math.min(margin.b, 4.4 * size); // the slider's room
  margin.b += size;
  const note = { showarrow: false, font: { size: 0.7 * size }, xref: "paper", y: 0, yref: "paper", yanchor: "bottom", yshift: 2 - margin.b };
  const where = `toydiff ${address ?? location.pathname + decodeURIComponent(location.search)}`;
  const when = slider ? [{ ...note, text: (slider.currentvalue.prefix ?? "") + slider.steps[slider.active ?? 0].label, x: 0, xanchor: "left" }] : [];
  layout.annotations = [...(layout.annotations ?? []), { ...note, text: where, x: 1, xanchor: "right" }, ...when];
  return { figure: { data: place.data, layout }, width, height, file };
}

function save(Plotly, place, has) {
  const { figure, width, height, file } = picture(place, has);
  return Plotly.downloadImage(figure, { format: "png", filename: file, width, height, scale: 3 });
}

// A place on the figure's first axes, as it is seen; nothing beside them.
function spot(place, event) {
  const { xaxis, yaxis } = place.layout, box = place.querySelector(".nsewdrag").getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width, y = (box.bottom - event.clientY) / box.height;
  const at = (fraction, [low, high]) => low + fraction * (high - low);
  return x < 0 || y < 0 || x > 1 || y > 1 ? undefined : [at(x, xaxis.range), at(y, yaxis.range)];
}

// All recent ones, numbered: of several that come while the page is being made, Streamlit would tell the last.
function number(place, what, values, tell) {
  const [last] = place[what]?.at(-1) ?? [0];
  place[what] = [...(place[what] ?? []), [Math.max(Date.now(), last + 1), ...values, place.madeOf]].slice(-20);
  tell(what, place[what]);
}

// A click, or a line that is drawn with the button held or with a finger: its places, once it ends. The browser's own click is lost where the figure is
// drawn anew between the two halves of it.
function pen(place, tell, signal) {
  const on = (what, then) => place.addEventListener(what, then, { capture: true, signal });
  let began, line, seen;
  const end = () => {
    seen?.remove();
    began = line = seen = undefined;
  };
  on("pointerdown", (event) => {
    end();
    began = !event.target.closest(".modebar") && spot(place, event) && event;
    if (began) place.setPointerCapture(event.pointerId); // plotly lays a cover over the page
    if (!began || !place.draws) return;
    line = [];
    seen = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    seen.setAttribute("class", "drawn");
    place.querySelector(".main-svg").append(seen);
  });
  on("pointermove", (event) => {
    const at = line && spot(place, event), corner = place.getBoundingClientRect();
    if (!at) return;
    line.push(at);
    seen.setAttribute("points", `${seen.getAttribute("points") ?? ""} ${event.clientX - corner.left},${event.clientY - corner.top}`);
  });
  on("pointerup", (event) => {
    const at = began && Math.hypot(event.clientX - began.clientX, event.clientY - began.clientY) < 6 && spot(place, event);
    if (line?.length > 4) number(place, "strokes", [line], tell);
    else if (at) number(place, "clicks", at, tell);
    end();
  });
  on("pointercancel", end);
}

// A wide screen is looked at from farther away: there letters, dots and lines are as much larger as the page's are, and so is the room for letters.
// On a phone and an upright tablet letters are a little smaller; on a phone panels stand below one another.
const PHONE = matchMedia("(max-width: 640px)"), NARROW = matchMedia("(max-width: 820px)"), TOUCH = matchMedia("(max-width: 640px), (pointer: coarse)"), SMALL = 0.78;
const scale = () => NARROW.matches ? SMALL : parseFloat(getComputedStyle(document.documentElement).fontSize) / 17; // config.toml's baseFontSize
const grows = (key, inside) => key === "standoff" || inside === "margin" || inside === "pad" || (key === "size" && /(font|marker)$/.test(inside)) || (key === "width" && inside === "line");

function enlarge(part, by, inside = "") {
  for (const [key, value] of Object.entries(part)) {
    if (value && typeof value === "object") enlarge(value, by, Array.isArray(part) ? inside : key);
    else if (typeof value === "number" && grows(key, inside)) part[key] = value * by;
  }
}

const bars = (data, layout) => data.some((trace) => trace.colorbar) ? 5 * layout.font.size : 0;

// On a narrow screen: axes' names as small as other letters, the slider below them, as wide as there is room (see beside); and a finger moves the page.
function fit({ layout }) {
  const below = 16, axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
  for (const key of axes) if (layout[key].title) layout[key].title.font = { size: layout.font.size };
  for (const slider of layout.sliders ?? []) slider.pad.t += below;
  for (const menu of layout.updatemenus ?? []) menu.pad.t += below;
  if (layout.sliders) layout.margin.b += below;
  if (layout.legend?.yref === "container") layout.margin.t += 6; // its keys do not become smaller
  layout.dragmode = false;
}

// On a phone the names of rows of digits stand above the rows, which then have the whole width.
function above({ data: [places], layout }, width) {
  const { xaxis, yaxis, margin, font } = layout, rows = (layout.images ?? []).filter(({ name }) => name === "ink");
  if (!rows.length) return;
  margin.l = margin.r;
  const [left, right] = xaxis.range, room = (1.7 * font.size * (right - left)) / (width - margin.l - margin.r);
  const { tickvals, ticktext } = yaxis, moved = (y) => y + room * (tickvals.indexOf(y) + 1);
  places.y = places.y.map(moved);
  rows.forEach((row, k) => (row.y += room * (k + 1)));
  const name = { xref: "x", yref: "y", x: left, xanchor: "left", yanchor: "bottom", showarrow: false };
  layout.annotations = rows.map((row, k) => ({ ...name, text: ticktext[k], y: row.y }));
  Object.assign(yaxis, { range: [yaxis.range[0] + room * rows.length, yaxis.range[1]], tickvals: tickvals.map(moved), showticklabels: false });
}

// Panels side by side come below one another: r rows of c panels become c rows of r. The height that this needs, in pixels.
function stack({ data, layout }, width) {
  const panels = Object.keys(layout).filter((key) => /^xaxis/.test(key)).map((key) => [layout[key], layout[layout[key].anchor.replace("y", "yaxis")]]);
  const places = (k, down) => [...new Set(panels.map((axes) => axes[k].domain[0].toFixed(3)))].sort((a, b) => (down ? b - a : a - b));
  const across = places(0), rows = places(1, true), letters = layout.font.size, margin = layout.margin;
  const lines = (note) => (note.xref === "paper" && note.yanchor === "bottom" ? note.text.split("<br>").length : 1);
  const heads = Math.max(1, ...(layout.annotations ?? []).map(lines)), between = rows.length > 1 ? 0.16 : 0;
  const wide = (width - margin.l - margin.r - bars(data, layout)) * (1 - between) / rows.length, [[x, y]] = panels;
  const ratio = panels.length === 1 && y.range ? Math.abs((y.range[1] - y.range[0]) / (x.range[1] - x.range[0])) : 1;
  const high = wide * (panels.some(([, one]) => one.scaleanchor) ? ratio : 0.75);
  const entries = (which) => data.filter((trace) => (trace.legend ?? "legend") === which && trace.name && trace.showlegend !== false);
  const rowsOf = (which) => Math.ceil(entries(which).reduce((sum, { name }) => sum + 0.43 * name.length + 3.4, 0) * letters / wide);
  const gap = (3.2 + 1.3 * heads + 2.8 * rowsOf("legend2")) * letters; // ticks, the axis' name, heads, the lower panel's legend
  if (layout.legend?.yref === "container") margin.t += Math.max(0, 2.3 * rowsOf("legend") - 1.6) * letters;
  const all = across.length * high + (across.length - 1) * gap, size = high / all;
  const moved = panels.map(([x, y]) => {
    const column = rows.indexOf(y.domain[0].toFixed(3)), row = across.indexOf(x.domain[0].toFixed(3));
    const left = rows.length > 1 ? column * (1 - (1 - between) / rows.length) / (rows.length - 1) : 0, top = 1 - row * (high + gap) / all;
    return { from: [(x.domain[0] + x.domain[1]) / 2, y.domain[1]], x, y, to: [[left, left + (1 - between) / rows.length], [top - size, top]] };
  });
  // what the first panel of a row named for all, each names now
  for (const { x, y } of moved) {
    const first = moved.find((one) => one.y.domain[0] === y.domain[0] && one.x.domain[0].toFixed(3) === across[0]);
    if (x !== first?.x && y.showticklabels === false) y.showticklabels = first?.y.showticklabels;
  }
  for (const note of layout.annotations ?? []) {
    const panel = note.xref === "paper" && moved.find(({ from: [x, y] }) => Math.abs(x - note.x) < 0.01 && Math.abs(y - note.y) < 0.01);
    if (panel) [note.x, note.y] = [(panel.to[0][0] + panel.to[0][1]) / 2, panel.to[1][1]];
  }
  for (const { x, y, to } of moved) {
    [x.domain, y.domain] = to;
  }
  const last = moved.at(-1)?.to[1] ?? [0, 1];
  for (const trace of data) if (trace.colorbar) Object.assign(trace.colorbar, { y: (last[0] + last[1]) / 2, len: size });
  if (layout.legend2) Object.assign(layout.legend2, { x: 0, xanchor: "left", y: last[1], yanchor: "bottom" });
  const beside = layout.showlegend && layout.legend?.orientation !== "h"; // a legend that would take half the width
  if (beside) layout.legend = { ...layout.legend, orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" };
  return all + margin.t + margin.b + (beside ? 7 * letters : 0);
}

// One function for all figures: where the settings differ Plotly.react begins anew, without the frames.
const saved = (place) => place.save();

function draw(Plotly, place) {
  if (place._transitionData?._animationRaf) Plotly.purge(place); // it plays: the old frames would go on in the new figure
  if (!place._fullLayout) place.textContent = "";
  const { figure, config, has } = JSON.parse(place.newest), by = (place.scale = scale());
  place.phone = PHONE.matches;
  const camera = { name: "PNG", title: "Save as PNG", icon: Plotly.Icons.camera, click: saved };
  enlarge(figure.layout, by);
  enlarge(figure.data, by);
  place.style.background = figure.layout.paper_bgcolor;
  const room = place.closest(".st-key-picture") ?? place.closest(".stBidiComponent");
  if (NARROW.matches) fit(figure);
  if (PHONE.matches) above(figure, place.clientWidth);
  if (room) room.style.height = PHONE.matches ? `${stack(figure, place.clientWidth)}px` : "";
  place.save = () => save(Plotly, place, has);
  place.picture = () => picture(place, has);
  place.madeOf = has.madeOf;
  place.draws = has.draws;
  place.layers = has.layers;
  place.seen = has.seen;
  place.redraw = () => draw(Plotly, place);
  if (has.layers) window.toydiffOver?.apply(figure);
  place.style.touchAction = has.draws ? "none" : "";
  const [slider] = figure.layout.sliders ?? [];
  // the slider follows a frame that differs from the last one only, which was another figure's
  if (slider && place._fullLayout) place._fullLayout._currentFrame = slider.steps[slider.active ?? 0].args[0][0];
  return Plotly.react(place, { ...figure, config: { ...config, displayModeBar: !TOUCH.matches && "hover", modeBarButtonsToAdd: [camera, whole] } })
    .then(() => figure.frames?.length && !place._transitionData._frames.length && Plotly.addFrames(place, figure.frames))
    .then(() => beside(Plotly, place))
    .then(() => follow(Plotly, place))
    .then(() => has.layers && window.toydiffOver?.drawn(place));
}

// A click on a dot shows its path alone, in every panel; another click on it, or another figure, shows all again. Paths are one line with gaps, the k-th that of the k-th dot.
const isPath = ({ mode, x }) => mode?.startsWith("lines") && x?.length > 2;
const dotsOf = (place) => place._fullData.map((trace, k) => [trace, k]).filter(([{ mode, type, x }]) => type === "scatter" && mode === "markers" && x?.length);

function cut({ x, y }) {
  const parts = [[]];
  for (let k = 0; k < x.length; k++) Number.isFinite(x[k] ?? NaN) ? parts.at(-1).push([x[k], y[k]]) : parts.push([]);
  return parts.filter((part) => part.length);
}

function follow(Plotly, place) {
  place.removeAllListeners?.("plotly_click");
  place.turn = undefined;
  const traces = place._fullData, paths = traces.map((trace, k) => [trace, k, isPath(trace) ? cut(trace) : []]);
  const many = (trace) => paths.filter(([line, , parts]) => line.xaxis === trace.xaxis && parts.length > 1 && parts.length === trace.x.length);
  const touched = dotsOf(place).filter(([trace]) => many(trace).length);
  if (!touched.length) return;
  const shapes = place.layout.shapes ?? [], plain = paths.map(([{ opacity }]) => opacity), lines = [...new Set(touched.flatMap(([trace]) => many(trace).map(([, k]) => k)))];
  const count = touched[0][0].x.length;
  let alone, pressed, done;
  place.turn = (by) => { // the next one's path alone; after the last one all
    const next = ((alone ?? count) + by + count + 1) % (count + 1);
    return show(next === count ? undefined : next);
  };
  const show = (one) => {
    alone = one;
    const found = lines.map((k) => [traces[k], paths[k][2][one]]).filter(([, part]) => part);
    const drawn = one === undefined ? [] : [...found.map(([{ xaxis, yaxis, line }, part]) => ({
      type: "path", xref: xaxis, yref: yaxis, layer: "above", line: { color: line.color, width: 4 }, path: `M${part.map((at) => at.join(",")).join("L")}`,
    })), ...(place.besides?.(found[0][1][0]) ?? [])];
    const faded = lines.map((k) => (one === undefined ? plain[k] : Math.min(plain[k], 0.12)));
    return Plotly.restyle(place, { opacity: faded }, lines)
      .then(() => Plotly.restyle(place, { selectedpoints: [one === undefined ? null : [one]] }, touched.map(([, k]) => k)))
      .then(() => Plotly.relayout(place, { shapes: [...shapes, ...drawn] }));
  };
  place.onpointerdown = (event) => (pressed = event); // a finger's tap is told twice, as touch and as mouse
  place.on("plotly_click", ({ points: [{ curveNumber, pointNumber }] }) => {
    if (pressed && pressed === done) return;
    done = pressed;
    if (touched.some(([, k]) => k === curveNumber)) show(pointNumber === alone ? undefined : pointNumber);
  });
}

// The slider begins where its button ends: how wide the axes' names have left the room is known now only.
function beside(Plotly, place) {
  const [slider] = place.layout.sliders ?? [], button = place.querySelector(".updatemenu-button"), { w } = place._fullLayout._size;
  const x = button && Math.min(0.5, (button.getBoundingClientRect().width + 12) / w);
  if (slider && x > slider.x) return Plotly.relayout(place, { "sliders[0].x": x, "sliders[0].len": 1 - x });
}

function begin(Plotly, place, has, tell) {
  const pressed = (event) => keys(Plotly, place, event);
  const gone = new AbortController();
  const fitted = new ResizeObserver(() => place.layout && (place.scale === scale() && place.phone === PHONE.matches ? Plotly.Plots.resize(place) : draw(Plotly, place)));
  if (has.keys) document.addEventListener("keydown", pressed, { capture: true, signal: gone.signal }); // before a box, which keeps arrows for itself
  if (has.clicks) pen(place, tell, gone.signal);
  fitted.observe(place);
  return () => {
    gone.abort();
    fitted.disconnect();
    Plotly.purge(place);
  };
}

export default function ({ data, parentElement, setStateValue, setTriggerValue }) {
  const place = parentElement.querySelector(".figure"), text = new TextDecoder().decode(data), { url, has, figure, alt } = JSON.parse(text);
  const paper = getComputedStyle(document.querySelector(".stApp")).backgroundColor, turned = has?.keys && paper !== place.paper;
  const run = (place.run = {}), leave = () => {
    if (place.run !== run) return; // Streamlit leaves a run that a newer one has overtaken, too
    place.run = place.newest = null;
    place.leave?.();
    place.leave = undefined;
  };
  place.paper = paper;
  if (text === place.newest) { // the page was made again, or it turned dark or light, and its figure should
    if (turned) setTriggerValue("turned", paper);
    return leave;
  }
  place.newest = text;
  plotly(url).then((Plotly) => {
    if (!figure || place.newest !== text) return;
    place.leave ??= begin(Plotly, place, has, setStateValue);
    place.tell = (what, values) => number(place, what, values, setStateValue);
    place.setAttribute("role", "figure");
    place.tabIndex = 0; // the keyboard reaches it, and its keys
    place.setAttribute("aria-label", alt);
    return draw(Plotly, place);
  }).catch((error) => (place.textContent = `The figure cannot be drawn: ${error.message}`));
  return leave;
}
