// The button saves the figure as plotly's own camera does. The keys left and right move the figure's slider, whose steps plotly itself
// moves by the mouse only: a click on the rail at the place of the step.
const figure = () => document.querySelector(".st-key-picture .js-plotly-plot");

function move(by) {
  const plot = figure(), slider = plot?.layout?.sliders?.[0], rail = plot?.querySelector(".slider-rail-touch-rect");
  if (!slider || !rail) return false;
  const steps = slider.steps.length, now = slider.active ?? 0, next = Math.min(Math.max(now + by, 0), steps - 1);
  if (next === now) return true;
  const box = rail.getBoundingClientRect(), handle = plot.querySelector(".slider-grip-rect").getBBox().width;
  // plotly maps the rail, less half a handle at each side, to the steps
  const x = box.left + handle / 2 + (next / (steps - 1)) * (box.width - handle), y = box.top + box.height / 2;
  for (const type of ["mousedown", "mouseup"])
    (type === "mousedown" ? rail : document).dispatchEvent(
      new MouseEvent(type, { bubbles: true, cancelable: true, view: window, clientX: x, clientY: y }));
  return true;
}

export default function ({ parentElement }) {
  const button = parentElement.querySelector("button");
  button.onclick = () => figure()?.querySelector('[data-title*="png" i], [data-attr="toImage"]')?.click();
  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("input, textarea, select, [role=slider], [role=tab], [role=combobox], [contenteditable=true], canvas")) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && move(by)) event.preventDefault();
  };
  document.addEventListener("keydown", keys);
  return () => document.removeEventListener("keydown", keys);
}
