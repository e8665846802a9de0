// Mixtures as words of the link, x,y,std,weight;..., as the app writes them, and what a reader chooses beyond the words
// of a control. data: what exact.py wrote.
"use strict";
window.toydiffMixtures = ({ mixtures, ranges }) => {
  const { round } = window.toydiffExact;
  const NAMED = Object.fromEntries(Object.entries(mixtures).map(([name, rows]) => [name, rows.map(component)]));

  function component(row) {
    if (row.length === 4) return round(...row);
    const [x, y, weight, s, r, ...axes] = row;
    return { x, y, weight, stds: [s, r], axes };
  }

  function rowsOf(word) { // null for what is no mixture
    const rows = word.split(";").map((row) => row.split(",").map((cell) => (cell.trim() ? Number(cell) : NaN)));
    const fits = (row) => row.length === 4 && row.every((value, k) => value >= ranges[k][0] && value <= ranges[k][1]);
    return rows.length <= ranges.at(-1) && rows.every(fits) ? rows : null;
  }

  const wordOf = (rows) => rows.map((row) => row.map((value) => Number(value.toPrecision(4))).join(",")).join(";");

  function mixtureOf(word) {
    if (NAMED[word]) return NAMED[word];
    const rows = rowsOf(word), total = rows.reduce((sum, row) => sum + row[3], 0);
    return rows.map(([x, y, std, weight]) => round(x, y, std, weight / total));
  }

  function drawable(word) { // the rows of any mixture; those of a ready-made one are made round
    if (!NAMED[word]) return rowsOf(word);
    const most = Math.max(...NAMED[word].map((one) => one.weight)), cut = (value) => Math.round(value * 1e3) / 1e3;
    return NAMED[word].map(({ x, y, weight, stds: [s, r] }) => [x, y, Math.sqrt((s * s + r * r) / 2), weight / most].map(cut));
  }

  function value(word) { // a mixture of the reader's own, as a control's value; null for what is none
    const rows = rowsOf(word);
    if (!rows) return null;
    const total = rows.reduce((sum, row) => sum + row[3], 0), list = (k) => `[${rows.map((row) => row[k]).join(", ")}]`;
    const means = `[${rows.map(([x, y]) => `[${x}, ${y}]`).join(", ")}]`, weights = `[${rows.map((row) => row[3] / total).join(", ")}]`;
    const code = `toydiff.GaussianMixture(${means}, std=${list(2)}, weights=${weights}, labels=range(${rows.length}))`;
    return { own: true, label: "drawn by hand", texts: [word], code };
  }

  function several(texts) { // any words of a control that has many, as its value
    const quoted = texts.map((text) => `'${text}'`).join(", ");
    return { own: true, texts, code: `(${quoted}${texts.length === 1 ? "," : ""})` };
  }

  return { NAMED, rowsOf, wordOf, mixtureOf, drawable, value, several };
};
