// A figure of plotly in `.figure`. Plotly.react draws only what differs from the figure before. The keys left and right move its slider.
const plotly = (url) => (window.toydiffPlotly ??= new Promise((done, failed) => {
  const script = document.createElement("script");
  script.src = url;
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
const BUSY = "input, textarea, select, [role=slider], [role=tab], [role=combobox], [contenteditable=true], canvas"; // what has a use for arrows itself

function keys(Plotly, place, event) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], slider = place.layout?.sliders?.[0];
  if (!by || !slider || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(BUSY)) return;
  event.preventDefault();
  const next = Math.min(Math.max((slider.active ?? 0) + by, 0), slider.steps.length - 1);
  Plotly.animate(place, ...slider.steps[next].args);
}

function click(place, event, tell) {
  if (event.target.closest(".modebar")) return;
  const { xaxis, yaxis } = place.layout, box = place.querySelector(".nsewdrag").getBoundingClientRect(); // as it is seen
  const x = (event.clientX - box.left) / box.width, y = (box.bottom - event.clientY) / box.height;
  const at = (fraction, [low, high]) => low + fraction * (high - low);
  if (x < 0 || y < 0 || x > 1 || y > 1) return;
  // all recent ones, numbered: of several that come while the page is being made, Streamlit would tell the last
  const [last] = place.clicks?.at(-1) ?? [0];
  place.clicks = [...(place.clicks ?? []), [Math.max(Date.now(), last + 1), at(x, xaxis.range), at(y, yaxis.range)]].slice(-20);
  tell("clicks", place.clicks);
}

// A wide screen is looked at from farther away: there letters, dots and lines are as much larger as the page's are, and so is the room for letters.
// A phone shows the whole figure, as small as its width makes it: panels side by side need ROOM pixels for their heads.
const PHONE = matchMedia("(max-width: 640px)"), ROOM = 640;
const scale = (place) => PHONE.matches && place.clientWidth ? place.clientWidth / ROOM : parseFloat(getComputedStyle(document.documentElement).fontSize) / 17; // config.toml's baseFontSize
const grows = (key, inside) => key === "standoff" || inside === "margin" || inside === "pad" || (key === "size" && /(font|marker)$/.test(inside)) || (key === "width" && inside === "line");

function enlarge(part, by, inside = "") {
  for (const [key, value] of Object.entries(part)) {
    if (value && typeof value === "object") enlarge(value, by, Array.isArray(part) ? inside : key);
    else if (typeof value === "number" && grows(key, inside)) part[key] = value * by;
  }
}

// On a phone: axes' names as small as other letters, the slider below them and beside its button, which does not shrink; and a finger moves the page.
function fit(layout) {
  const below = 16, axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
  for (const key of axes) if (layout[key].title) layout[key].title.font = { size: layout.font.size };
  for (const slider of layout.sliders ?? []) Object.assign(slider, { x: 0.22, len: 0.78, pad: { t: slider.pad.t + below } });
  for (const menu of layout.updatemenus ?? []) menu.pad.t += below;
  if (layout.sliders) layout.margin.b += below;
  layout.dragmode = false;
}

function draw(Plotly, place) {
  if (place._transitionData?._animationRaf) Plotly.purge(place); // it plays: the old frames would go on in the new figure
  if (!place._fullLayout) place.textContent = "";
  const { figure, config } = JSON.parse(place.newest), by = (place.scale = scale(place));
  enlarge(figure.layout, by);
  enlarge(figure.data, by);
  place.style.background = figure.layout.paper_bgcolor;
  if (PHONE.matches) fit(figure.layout);
  return Plotly.react(place, { ...figure, config: { ...config, displayModeBar: !PHONE.matches && "hover", modeBarButtonsToAdd: [whole] } });
}

function begin(Plotly, place, has, tell) {
  const pressed = (event) => keys(Plotly, place, event);
  const fitted = new ResizeObserver(() => place.layout && (place.scale === scale(place) ? Plotly.Plots.resize(place) : draw(Plotly, place)));
  if (has.keys) document.addEventListener("keydown", pressed);
  if (has.clicks) place.addEventListener("click", (event) => click(place, event, tell));
  fitted.observe(place);
  return () => {
    document.removeEventListener("keydown", pressed);
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
    place.setAttribute("role", "figure");
    place.setAttribute("aria-label", alt);
    return draw(Plotly, place);
  }).catch((error) => (place.textContent = `The figure cannot be drawn: ${error.message}`));
  return leave;
}
