// The button saves the figure of the page as plotly's own camera does.
export default function ({ parentElement }) {
  parentElement.querySelector("button").onclick = () =>
    document.querySelector('.st-key-picture .js-plotly-plot [data-title*="png" i]')?.click();
}
