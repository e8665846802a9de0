// A figure of plotly in `.figure`. Plotly.react draws only what differs from the figure before. The keys left and right move its slider.
const plotly = (url) => (window.toydiffPlotly ??= new Promise((done, failed) => {
  const script = document.createElement("script");
  script.src = url;
  script.onload = () => done(window.Plotly);
  script.onerror = () => failed(new Error(`plotly.js is not at ${url}`));
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
  const { xaxis, yaxis } = place._fullLayout, box = place.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left - xaxis._offset, event.clientY - box.top - yaxis._offset];
  if (x >= 0 && y >= 0 && x <= xaxis._length && y <= yaxis._length) tell([xaxis.p2d(x), yaxis.p2d(y)]);
}

function begin(Plotly, place, has, tell) {
  const pressed = (event) => keys(Plotly, place, event), fitted = new ResizeObserver(() => place.layout && Plotly.Plots.resize(place));
  if (has.keys) document.addEventListener("keydown", pressed);
  if (has.clicks) place.addEventListener("click", (event) => click(place, event, (at) => tell("clicked", at)));
  fitted.observe(place);
  return () => {
    document.removeEventListener("keydown", pressed);
    fitted.disconnect();
    Plotly.purge(place);
  };
}

export default function ({ data, parentElement, setTriggerValue }) {
  const place = parentElement.querySelector(".figure"), { url, has, figure, config, alt } = JSON.parse(new TextDecoder().decode(data));
  place.newest = figure;
  plotly(url).then((Plotly) => {
    if (!figure || place.newest !== figure) return;
    place.leave ??= begin(Plotly, place, has, setTriggerValue);
    place.setAttribute("role", "figure");
    place.setAttribute("aria-label", alt);
    place.style.background = figure.layout.paper_bgcolor;
    return Plotly.react(place, { ...figure, config: { ...config, modeBarButtonsToAdd: [whole] } });
  }).catch((error) => (place.textContent = `The figure cannot be drawn: ${error.message}`));
  return () => place.leave?.();
}
