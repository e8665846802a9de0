// Exact mixtures in the plane, in float64 as in Python: schedules, the default time grid, the denoiser, solvers, and the
// exact flow. A state is x, a Float64Array of B points (x1, y1, x2, y2, ...); a level is {t, alpha, sigma, lam}.
"use strict";
window.toydiffExact = (() => {
  // the sum of c v over the terms [c, v]
  function combine(...terms) {
    const out = new Float64Array(terms[0][1].length);
    for (const term of terms) {
      const c = term[0], v = term[1];
      for (let i = 0; i < out.length; i++) out[i] += c * v[i];
    }
    return out;
  }

  // ---- schedules: log alpha and its slope where alpha^2 + sigma^2 = 1, and t of lambda

  const softplus = (v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));
  const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
  const preserving = (log, slope, time) => ({
    alpha: (t) => Math.exp(log(t)),
    sigma: (t) => Math.sqrt(0 - Math.expm1(2 * log(t))),
    rates(t) {
      const alpha = this.alpha(t);
      return [alpha * slope(t), (-alpha * alpha * slope(t)) / this.sigma(t)];
    },
    time,
  });

  function vp(low = 0.1, high = 20) {
    const d = high - low;
    return preserving(
      (t) => -0.25 * d * t * t - 0.5 * low * t,
      (t) => -0.5 * d * t - 0.5 * low,
      (lam) => {
        const q = 2 * d * softplus(-2 * lam);
        return clamp(q / ((Math.sqrt(low * low + q) + low) * d), 0, 1);
      },
    );
  }

  function tabulated(beta) { // log alpha is linear between the K steps of a table
    const K = 1000, table = new Float64Array(K + 1);
    let product = 1;
    for (let k = 0; k < K; k++) table[k + 1] = 0.5 * Math.log((product *= 1 - beta(k / (K - 1))));
    const left = (t) => clamp(Math.floor(t * K), 0, K - 1);
    return preserving(
      (t) => table[left(t)] + (t * K - left(t)) * (table[left(t) + 1] - table[left(t)]),
      (t) => K * (table[left(t) + 1] - table[left(t)]),
      (lam) => {
        const log = -0.5 * softplus(-2 * lam);
        let [low, high] = [0, K];
        while (high - low > 1) table[(low + high) >> 1] >= log ? (low = (low + high) >> 1) : (high = (low + high) >> 1);
        return clamp((low + (log - table[low]) / (table[low + 1] - table[low])) / K, 0, 1);
      },
    );
  }

  const QUARTER = Math.PI / 2, FIRST = 8.5e-4, LAST = 1.2e-2;
  const SCHEDULES = {
    vp: vp(),
    cosine: {
      alpha: (t) => Math.sin((1 - t) * QUARTER),
      sigma: (t) => Math.sin(t * QUARTER),
      rates: (t) => [-QUARTER * Math.sin(t * QUARTER), QUARTER * Math.sin((1 - t) * QUARTER)],
      time: (lam) => Math.atan(Math.exp(-lam)) / QUARTER,
    },
    linear: { alpha: (t) => 1 - t, sigma: (t) => t, rates: () => [-1, 1], time: (lam) => 1 / (1 + Math.exp(lam)) },
    ve: {
      alpha: () => 1,
      sigma: (t) => 80 * t ** 7,
      rates: (t) => [0, 560 * t ** 6],
      time: (lam) => clamp(Math.exp((-lam - Math.log(80)) / 7), 0, 1),
    },
    "scaled-linear": tabulated((r) => (Math.sqrt(FIRST) + r * (Math.sqrt(LAST) - Math.sqrt(FIRST))) ** 2),
    "linear-table": tabulated((r) => FIRST + r * (LAST - FIRST)),
  };

  function level(schedule, t) {
    const alpha = schedule.alpha(t), sigma = schedule.sigma(t);
    return { t, alpha, sigma, lam: Math.log(alpha) - Math.log(sigma) };
  }

  const A = 0.12, B = 1.4; // u = log((sigma + a alpha)/(sigma + b alpha)) for data of size 1: about -lambda between NSR a and b
  const SHIFTS = { "shifted-lambda": [A, B], "shifted-lambda-wide": [0.07, 3.5], "shifted-lambda-narrow": [0.056, 0.7] };
  const warp = ({ alpha, sigma }, size, [a, b] = [A, B]) => Math.log((sigma + a * size * alpha) / (sigma + b * size * alpha));
  const line = (from, to, n) => Array.from({ length: n }, (_, i) => from + ((to - from) * i) / (n - 1));

  // The levels of N steps from t = 1 to 0 on a grid of toydiff/grids.py, for data of this size.
  function grid(schedule, N, size, kind = "shifted-lambda") {
    const ends = [level(schedule, 1), level(schedule, 0)], at = (nsr) => level(schedule, schedule.time(-Math.log(nsr)));
    if (kind === "uniform" || kind === "quadratic") return line(1, 0, N + 1).map((t) => level(schedule, kind === "uniform" ? t : t * t));
    if (SHIFTS[kind]) {
      const [noise, data] = ends.map((end) => warp(end, size, SHIFTS[kind])), [a, b] = SHIFTS[kind];
      const inner = line(noise, data, N + 1).slice(1, -1).map(Math.exp).map((e) => at((b * size * e - a * size) / (1 - e)));
      return [ends[0], ...inner, ends[1]];
    }
    const [to, back] = kind === "lambda" ? [Math.log, Math.exp] : [(n) => n ** (1 / 7), (v) => v ** 7];
    const noisiest = ends[0].sigma / ends[0].alpha, low = 0.5 / N, high = Number.isFinite(noisiest) ? noisiest : Math.max(30, 2 * low);
    const spaced = high === noisiest ? N : N - 1, levels = spaced < 2 ? Array(N - 1).fill(low) : line(to(high), to(low), spaced).map(back);
    return [ends[0], ...(spaced < 2 || high < noisiest ? levels : levels.slice(1)).map(at), ends[1]];
  }

  // N steps uniform in lambda between two finite ones.
  const inner = (schedule, N, [from, to]) => line(from, to, N + 1).map((lam) => level(schedule, schedule.time(lam)));

  // ---- mixtures: components {x, y, weight, stds: [s, s'], axes: [a, b, c, d]}, the axes (a, c) and (b, d)

  const round = (x, y, std, weight) => ({ x, y, weight, stds: [std, std], axes: [1, 0, 0, 1] });

  // The scale of the data, by which the grid goes: r^(1/4) l^(3/4). r^2 is the mean variance of a coordinate, and l^2
  // the greatest variance in any direction, by 30 power iterations from `start`.
  function sizeOf(mixture, start) {
    const mean = [0, 0], C = [0, 0, 0];
    for (const { x, y, weight } of mixture) (mean[0] += weight * x), (mean[1] += weight * y);
    for (const { x, y, weight, stds: [s, r], axes: [a, b, c, d] } of mixture) {
      const u = x - mean[0], v = y - mean[1];
      C[0] += weight * (u * u + (a * s) ** 2 + (b * r) ** 2);
      C[1] += weight * (u * v + a * c * s * s + b * d * r * r);
      C[2] += weight * (v * v + (c * s) ** 2 + (d * r) ** 2);
    }
    const mid = Math.sqrt((C[0] + C[2]) / 2);
    let p = start[0], q = start[1], most = 0;
    for (let k = 0; k < 30; k++) {
      const size = Math.hypot(p, q), e = p / size, f = q / size;
      (p = C[0] * e + C[1] * f), (q = C[1] * e + C[2] * f), (most = e * p + f * q);
    }
    return mid ** 0.25 * Math.max(Math.sqrt(most), mid) ** 0.75;
  }

  // The component that a uniform number chooses.
  function choose(mixture, u) {
    let k = 0;
    for (let sum = mixture[0].weight; sum < u && k < mixture.length - 1; ) sum += mixture[++k].weight;
    return k;
  }

  // B draws of x at a level, from B uniform numbers, which choose components, and 2 B normal ones.
  function start(mixture, { alpha, sigma }, uniforms, normals) {
    const out = new Float64Array(2 * uniforms.length);
    uniforms.forEach((u, i) => {
      const { x, y, stds: [s, r], axes: [a, b, c, d] } = mixture[choose(mixture, u)];
      const p = Math.hypot(alpha * s, sigma) * normals[2 * i], q = Math.hypot(alpha * r, sigma) * normals[2 * i + 1];
      out[2 * i] = alpha * x + a * p + b * q;
      out[2 * i + 1] = alpha * y + c * p + d * q;
    });
    return out;
  }

  // The exact denoiser: x0 = sum_k r_k [m_k + alpha C_k V_k^-1 (x - alpha m_k)], eps = sigma sum_k r_k V_k^-1 (x -
  // alpha m_k), V_k = alpha^2 C_k + sigma^2, r_k the posterior probability of component k. allowed: of each point
  // the components that may be its own; by default all.
  function denoise(mixture, x, at, allowed = null) {
    const { alpha, sigma } = at, K = mixture.length, x0 = new Float64Array(x.length), eps = new Float64Array(x.length);
    const all = Array.from(mixture, (_, k) => k), logs = new Float64Array(K), ps = new Float64Array(K), qs = new Float64Array(K);
    const parts = mixture.map(({ x, y, weight, stds: [s, r], axes: [a, b, c, d] }) => {
      const V = (alpha * s) ** 2 + sigma ** 2, W = (alpha * r) ** 2 + sigma ** 2;
      return { x, y, a, b, c, d, V, W, log: Math.log(weight) - 0.5 * (Math.log(V) + Math.log(W)), s: alpha * s * s, r: alpha * r * r };
    });
    for (let i = 0; i < x.length; i += 2) {
      const own = allowed ? allowed[i / 2] : all;
      let best = -Infinity, mass = 0, e = 0, f = 0, g = 0, h = 0;
      for (const k of own) {
        const part = parts[k], u = x[i] - alpha * part.x, v = x[i + 1] - alpha * part.y;
        const p = part.a * u + part.c * v, q = part.b * u + part.d * v, log = part.log - 0.5 * ((p * p) / part.V + (q * q) / part.W);
        (ps[k] = p / part.V), (qs[k] = q / part.W), (logs[k] = log);
        if (log > best) best = log;
      }
      for (const k of own) {
        if (logs[k] < best - 40) continue; // e^-40 is below a rounding
        const part = parts[k], w = Math.exp(logs[k] - best), p = part.s * ps[k], q = part.r * qs[k];
        mass += w;
        e += w * (part.x + part.a * p + part.b * q);
        f += w * (part.y + part.c * p + part.d * q);
        g += w * (part.a * ps[k] + part.b * qs[k]);
        h += w * (part.c * ps[k] + part.d * qs[k]);
      }
      (x0[i] = e / mass), (x0[i + 1] = f / mass), (eps[i] = (g * sigma) / mass), (eps[i + 1] = (h * sigma) / mass);
    }
    return { x, at, x0, eps };
  }

  // The denoiser as a function of x and its level.
  const denoiser = (mixture) => (x, at) => denoise(mixture, x, at);

  // Classifier-free guidance: eps = eps_none + g (eps_class - eps_none), and x0 alike. labels: a class a component; cond:
  // a class a point.
  function guided(mixture, labels, cond, g) {
    const allowed = cond.map((one) => labels.flatMap((label, k) => (label === one ? [k] : [])));
    return (x, at) => {
      const own = denoise(mixture, x, at, allowed);
      if (g === 1) return own;
      const free = denoise(mixture, x, at), lead = (key) => combine([1 - g, free[key]], [g, own[key]]);
      return { x, at, x0: lead("x0"), eps: lead("eps") };
    };
  }

  // The score of x_t, the gradient of its log density: -eps/sigma.
  const score = ({ eps, at }) => combine([-1 / at.sigma, eps]);

  // The density on the lattice of xs and ys, up to a factor: a Float64Array, row by row.
  function density(mixture, xs, ys) {
    const out = new Float64Array(xs.length * ys.length);
    for (const { x, y, weight, stds: [s, r], axes: [a, b, c, d] } of mixture) {
      const most = weight / (s * r), bell = (v) => Math.exp(-0.5 * v * v);
      if (b === 0 && c === 0) { // a product of two bells
        const across = xs.map((u) => bell((u - x) / s));
        ys.forEach((v, i) => {
          const part = most * bell((v - y) / r);
          if (part > 1e-12 * most) for (let j = 0, k = i * xs.length; j < xs.length; j++, k++) out[k] += part * across[j];
        });
        continue;
      }
      for (let i = 0, k = 0; i < ys.length; i++) {
        for (let j = 0; j < xs.length; j++, k++) {
          const u = xs[j] - x, v = ys[i] - y, p = (a * u + c * v) / s, q = (b * u + d * v) / r;
          out[k] += most * Math.exp(-0.5 * (p * p + q * q));
        }
      }
    }
    return out;
  }

  // ---- solvers: step(run, p, s) -> x at s, from the prediction p at (x, t). run: D(x, level), the schedule, the size
  // of the data, earlier predictions (newest first), and this step's noise

  const jump = (p, s) => combine([s.alpha, p.x0], [s.sigma, p.eps]);
  const finite = (step) => (run, p, s) => (Number.isFinite(s.lam - p.at.lam) ? step(run, p, s) : jump(p, s)); // in lambda
  const partWay = ({ schedule }, t, s, r) => level(schedule, schedule.time(t.lam + r * (s.lam - t.lam)));

  function euler({ schedule }, p, s) {
    const [alpha, sigma] = schedule.rates(p.at.t), dt = s.t - p.at.t;
    return combine([1, p.x], [dt * alpha, p.x0], [dt * sigma, p.eps]);
  }

  function heun({ D }, p, s) {
    const { at } = p, half = 0.5 * s.alpha * (s.sigma / s.alpha - at.sigma / at.alpha);
    return combine([s.alpha / at.alpha, p.x], [half, p.eps], [half, D(jump(p, s), s).eps]);
  }

  // DPM-Solver in its noise form, and with alpha and sigma, h and -h, eps and x0 exchanged in its data form
  const NOISE = { sign: 1, a: "alpha", b: "sigma", m: "eps" }, DATA = { sign: -1, a: "sigma", b: "alpha", m: "x0" };
  function phis(form, h) {
    const H = form.sign * h, one = Math.expm1(H), two = one / H - 1;
    return [one, two, two / H - 0.5];
  }
  const integrate = (form, p, s, ...terms) => combine([s[form.a] / p.at[form.a], p.x], ...terms.map(([c, v]) => [-s[form.b] * c, v]));

  const second = (form) => (run, p, s) => {
    const h = s.lam - p.at.lam, middle = partWay(run, p.at, s, 0.5), m = p[form.m], [one] = phis(form, h);
    const inside = run.D(integrate(form, p, middle, [phis(form, 0.5 * h)[0], m]), middle)[form.m];
    return integrate(form, p, s, [one, inside]);
  };

  const third = (form) => (run, p, s) => {
    const h = s.lam - p.at.lam, m = p[form.m], at1 = partWay(run, p.at, s, 1 / 3), at2 = partWay(run, p.at, s, 2 / 3);
    const m1 = run.D(integrate(form, p, at1, [phis(form, h / 3)[0], m]), at1)[form.m];
    let [one, two] = phis(form, (2 / 3) * h);
    const m2 = run.D(integrate(form, p, at2, [one, m], [2 * two, combine([1, m1], [-1, m])]), at2)[form.m];
    [one, two] = phis(form, h);
    return integrate(form, p, s, [one, m], [1.5 * two, combine([1, m2], [-1, m])]);
  };

  const usable = (past) => past.filter((p) => Number.isFinite(p.at.lam));
  function slopes(form, p, s, olds) { // the ratios of earlier steps to this one, and the differences over them
    const ratios = [], D1 = [], h = s.lam - p.at.lam;
    let newer = p;
    for (const old of olds) {
      const r = (newer.at.lam - old.at.lam) / h;
      ratios.push(r), D1.push(combine([1 / r, newer[form.m]], [-1 / r, old[form.m]]));
      newer = old;
    }
    return [ratios, D1];
  }

  function twoValues(form, p, s, olds) {
    const [, [D1]] = slopes(form, p, s, olds.slice(0, 1)), [one] = phis(form, s.lam - p.at.lam);
    return integrate(form, p, s, [one, p[form.m]], [0.5 * one, D1]);
  }

  const multistep2 = (form) => ({ past }, p, s) => (usable(past).length ? twoValues(form, p, s, usable(past)) : jump(p, s));
  function threeValues(form, p, s, olds, factor = 2) {
    const [[r0, r1], [D10, D11]] = slopes(form, p, s, olds.slice(0, 2)), [one, two, three] = phis(form, s.lam - p.at.lam);
    const bend = combine([1, D10], [-1, D11]);
    return integrate(form, p, s, [one, p[form.m]], [two, D10], [(two * r0 + factor * three) / (r0 + r1), bend]);
  }

  const multistep3 = (form) => (run, p, s) => {
    const olds = usable(run.past);
    if (olds.length < 2) return olds.length ? twoValues(form, p, s, olds) : second(form)(run, p, s);
    return threeValues(form, p, s, olds);
  };
  const published = (run, p, s) => (usable(run.past).length < 2 ? multistep2(DATA)(run, p, s) : threeValues(DATA, p, s, usable(run.past), 1));

  // Adams-Bashforth in the angle theta = atan(NSR/sigma_d), interpolated in u (`warp`)
  const NODES = (() => { // of Gauss and Legendre's rule with 16 nodes on [0, 1], and their weights
    const n = 16, out = [];
    for (let i = 1; i <= n; i++) {
      let z = Math.cos((Math.PI * (i - 0.25)) / (n + 0.5)), slope;
      for (let turn = 0; turn < 20; turn++) {
        let [one, two] = [1, 0];
        for (let j = 1; j <= n; j++) [one, two] = [((2 * j - 1) * z * one - (j - 1) * two) / j, one];
        (slope = (n * (z * one - two)) / (z * z - 1)), (z -= one / slope);
      }
      out.push([(1 - z) / 2, 1 / ((1 - z * z) * slope * slope)]);
    }
    return out;
  })();

  const radius = (size, { alpha, sigma }) => Math.hypot(sigma, size * alpha);
  const angle = (size, { alpha, sigma }) => Math.atan2(sigma, size * alpha);
  function F(size, { at, x0, eps }, c = 1) { // c F as terms
    c /= radius(size, at);
    return [[(c * at.sigma) / size, x0], [-c * at.alpha * size, eps]];
  }

  // size: of the data, for u; wide: sigma_d in units of it
  function adams(size, base, s, values, wide = 1) {
    const d = wide * size, a = A * size, b = B * size, from = warp(base.at, size), to = warp(s, size), places = values.map((p) => warp(p.at, size));
    const weights = values.map(() => 0);
    for (const [node, weight] of NODES) {
      const u = from + (to - from) * node, e = Math.exp(u);
      const rate = (d * (b - a) * e) / ((b * e - a) ** 2 + (d * (1 - e)) ** 2);
      places.forEach((own, j) => {
        const L = places.reduce((product, place, k) => (k === j ? product : (product * (u - place)) / (own - place)), 1);
        weights[j] += (to - from) * weight * rate * L;
      });
    }
    const there = radius(d, s), terms = values.flatMap((p, j) => F(d, p, -there * weights[j]));
    return combine([there / radius(d, base.at), base.x], ...terms);
  }

  // the same x0 at a corrected state
  const moved = (p, x) => ({ ...p, x, eps: combine([1 / p.at.sigma, x], [-p.at.alpha / p.at.sigma, p.x0]) });

  const adamsBashforth = (q, wide = 1) => (run, p, s) => {
    const olds = run.past.slice(0, q - 1);
    if (!olds.length && s.sigma === 0) return jump(p, s);
    if (q === 3 && olds.length === 1) p = run.correct(moved(p, adams(run.size, olds[0], p.at, [p, ...olds], wide)));
    return adams(run.size, p, s, [p, ...olds], wide);
  };

  // the default solver: of every order as much as a sample can trust (toydiff/solvers/guarded.py has the numbered lines)
  const TRUST = 0.35, SLACK = 0.03;
  const fraction = (most, size) => (size <= most ? 1 : most / size);
  const dot = (v, w, i) => v[i] * w[i] + v[i + 1] * w[i + 1];
  const length = (v, i) => Math.sqrt(dot(v, v, i));

  function guardedStep(size, base, s, values, older) {
    const J = jump(base, s), scale = radius(size, s), clean = s.sigma === 0;
    if (values.length === 1) return clean ? J : adams(size, base, s, values);
    const carried = combine([scale / radius(size, base.at), base.x]), step = combine([1, J], [-1, carried]);
    const [at, off, out] = [0, 1, 2].map(() => new Float64Array(J.length));
    if (older.length && !clean) { // 1
      const d = combine([1 / radius(size, base.at), base.x], [-1 / radius(size, older[0].at), older[0].x]);
      const change = combine(...F(size, base), ...F(size, older[0], -1)), turn = angle(size, s) - angle(size, base.at);
      for (let i = 0; i < d.length; i += 2) {
        const square = Math.max(dot(d, d, i), 1.1754943508222875e-38), k = (turn * dot(change, d, i)) / square;
        const back = ((1 - fraction(1, k)) * dot(step, d, i)) / square;
        (step[i] -= back * d[i]), (step[i + 1] -= back * d[i + 1]);
      }
    }
    const slack = SLACK * scale * Math.SQRT2, x1 = adams(size, base, s, values.slice(0, 1)), x2 = adams(size, base, s, values.slice(0, 2));
    const x3 = values.length === 3 ? adams(size, base, s, values) : null, two = combine([1, x2], [-1, x1]);
    const three = x3 && combine([1, x3], [-1, x2]), settled = clean && combine([1, base.x0], [-1, older[0].x0]);
    for (let i = 0; i < J.length; i += 2) {
      let p = fraction(TRUST * length(step, i) + slack, length(two, i)), q = 0; // 2
      if (three) { // 3
        p *= fraction(TRUST * length(two, i) + slack, length(three, i));
        q = fraction(TRUST * p * length(two, i) + slack, length(three, i));
      }
      for (let j = i; j < i + 2; j++) { // 4
        at[j] = carried[j] + step[j];
        off[j] = p * (x2[j] - at[j]) + (three ? p * q * three[j] : 0);
      }
      const kept = clean ? fraction(2 * s.alpha * length(settled, i), length(off, i)) : 1; // 5
      for (let j = i; j < i + 2; j++) out[j] = at[j] + kept * off[j];
    }
    return out;
  }

  function guarded(run, p, s) {
    const older = run.past.slice(0, 2);
    if (older.length === 1) p = run.correct(moved(p, guardedStep(run.size, older[0], p.at, [older[0], p], [])));
    return guardedStep(run.size, p, s, [p, ...older], older);
  }

  // stochastic ones
  const ddpm = (variance) => ({ noise }, p, s) => {
    const { at } = p, kept = at.alpha / s.alpha, spread = Math.max(at.sigma ** 2 - (kept * s.sigma) ** 2, 0), part = (s.sigma / at.sigma) ** 2;
    const v = variance === "small" ? part * spread : s.sigma > 0 ? spread : 0;
    return combine([kept * part, p.x], [(s.alpha * spread) / at.sigma ** 2, p.x0], [Math.sqrt(v), noise]);
  };

  function eulerMaruyama({ schedule, noise }, p, s) {
    const [alpha, sigma] = schedule.rates(p.at.t), dt = s.t - p.at.t, g2 = 2 * p.at.sigma * (sigma - (p.at.sigma * alpha) / p.at.alpha);
    return combine([1, p.x], [dt * alpha, p.x0], [dt * (sigma + (0.5 * g2) / p.at.sigma), p.eps], [Math.sqrt(-g2 * dt), noise]);
  }

  const lcm = ({ noise }, p, s) => combine([s.alpha, p.x0], [s.sigma, noise]);

  function tcd({ schedule, noise }, p, s) {
    const r = level(schedule, 0.7 * s.t), kept = s.alpha / r.alpha;
    return combine([kept, jump(p, r)], [Math.sqrt(Math.max(s.sigma ** 2 - (kept * r.sigma) ** 2, 0)), noise]);
  }

  const SOLVERS = {
    euler,
    ddim: (run, p, s) => jump(p, s),
    heun: finite(heun),
    dpm2: finite(second(NOISE)),
    dpm3: finite(third(NOISE)),
    dpm2m: finite(multistep2(NOISE)),
    dpm3m: finite(multistep3(NOISE)),
    "dpm++2s": finite(second(DATA)),
    "dpm++3s": finite(third(DATA)),
    "dpm++2m": finite(multistep2(DATA)),
    "dpm++3m": finite(multistep3(DATA)),
    "dpm++3m-published": finite(published),
    ab2: adamsBashforth(2),
    ab3: adamsBashforth(3),
    "ab3-wide": adamsBashforth(3, 2),
    guarded,
    ddpm: ddpm("small"),
    "ddpm-large": ddpm("large"),
    "euler-maruyama": finite(eulerMaruyama),
    lcm,
    tcd,
  };

  // The steps of denoiser D between levels, from x: {levels, xs, calls}. noises: a Float64Array a step, for stochastic
  // solvers.
  function solve(D, schedule, name, x, levels, size, noises = []) {
    const xs = [x], run = { schedule, size, past: [], correct: (p) => (run.own = p) };
    let calls = 0;
    run.D = (y, at) => (calls++, D(y, at));
    for (let i = 0; i < levels.length - 1; i++) {
      run.own = run.D(x, levels[i]);
      run.noise = noises[i];
      x = SOLVERS[name](run, run.own, levels[i + 1]);
      xs.push(x);
      run.past = [run.own, ...run.past].slice(0, 3);
    }
    return { levels, xs, calls };
  }

  // ---- the exact flow of D between two levels: Dormand and Prince's pair in the angle, in which the ODE of u = x/sqrt(alpha^2
  // + sigma^2) is finite at both ends: du/dtheta = cos(theta) eps - sin(theta) x0

  const DP = [[1 / 5], [3 / 40, 9 / 40], [44 / 45, -56 / 15, 32 / 9], [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656], [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84]];
  const PLACES = [1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1], MISS = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40];

  function flow(D, x, from, to, tolerance = 1e-7) {
    const rate = (theta, u) => {
      const c = Math.cos(theta), s = Math.sin(theta), p = D(u, { alpha: c, sigma: s });
      return combine([c, p.eps], [-s, p.x0]);
    };
    const last = Math.atan2(to.sigma, to.alpha);
    let theta = Math.atan2(from.sigma, from.alpha), u = combine([1 / Math.hypot(from.alpha, from.sigma), x]), h = -0.02, first = rate(theta, u);
    while (theta > last) {
      h = Math.max(h, last - theta);
      const slopes = [first];
      let next;
      DP.forEach((row, k) => {
        next = combine([1, u], ...row.map((c, j) => [h * c, slopes[j]]));
        slopes.push(rate(theta + PLACES[k] * h, next));
      });
      const miss = combine(...MISS.map((c, j) => [h * c, slopes[j]]));
      const error = Math.sqrt(miss.reduce((sum, e, i) => sum + (e / (tolerance * (1 + Math.max(Math.abs(u[i]), Math.abs(next[i]))))) ** 2, 0) / u.length);
      if (error <= 1) (theta = h === last - theta ? last : theta + h), (u = next), (first = slopes[6]);
      h *= clamp(0.9 * error ** -0.2, 0.2, 5);
    }
    return combine([Math.hypot(to.alpha, to.sigma), u]);
  }

  return { SCHEDULES, SOLVERS, GRIDS: [...Object.keys(SHIFTS), "lambda", "karras", "uniform", "quadratic"], level, grid, inner, round, sizeOf, choose, start, denoiser, guided, score, density, solve, flow };
})();
