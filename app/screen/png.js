// The button saves the figure of the page, as the camera on the figure does.
export default function ({ parentElement }) {
  parentElement.querySelector("button").onclick = () =>
    document.querySelector(".st-key-picture .js-plotly-plot")?.save();
}
