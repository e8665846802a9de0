// Logarithmic axes, and numbers, as the app writes them.
"use strict";
window.toydiffAxes = (() => {
  function number(value, digits = 6) { // as Python's format :.{digits}g
    if (!value || !Number.isFinite(value)) return String(value || 0);
    const [mantissa, power] = value.toExponential(digits - 1).split("e"), exponent = Number(power);
    if (exponent >= -4 && exponent < digits) return String(Number(value.toPrecision(digits)));
    return `${Number(mantissa)}e${power[0]}${power.slice(1).padStart(2, "0")}`;
  }

  function limits(values, air) { // of an axis, in powers of ten, with this part of it as air at both ends
    const logs = values.filter((v) => v > 0 && Number.isFinite(v)).map(Math.log10), low = Math.min(...logs), high = Math.max(...logs);
    return [low - air * (high - low || 1), high + air * (high - low || 1)];
  }

  function ticks([low, high], finest = Infinity, round = Infinity) { // 1, 2, 5, 10, ... where the ratio of the ends is at most `finest`, 1, 3, 10, ... up to `round`, then powers
    const ratio = 10 ** (high - low), out = [];
    if (ratio > round) return { tickvals: null, ticktext: null, dtick: 1, exponentformat: "power" };
    for (let power = Math.floor(low); power <= Math.ceil(high); power++) for (const m of ratio > finest ? [1, 3] : [1, 2, 5]) out.push(Number(`${m}e${power}`));
    const tickvals = out.filter((v) => Math.log10(v) >= low && Math.log10(v) <= high);
    return { tickvals, ticktext: tickvals.map((v) => number(v)) };
  }

  return { number, limits, ticks };
})();
