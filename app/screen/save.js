// The buttons below a figure: the figure of the page as a file, as it is on show, without what only moves on a page.
const SCALE = 3; // pixels of a PDF beside those of the screen
const WIDEST = 960; // pixels of a GIF
const place = () => document.querySelector(".st-key-picture .js-plotly-plot");

function download(name, type, parts) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function pixels({ figure, width, height }, scale) {
  const image = new Image(), out = document.createElement("canvas");
  image.src = await window.Plotly.toImage(figure, { format: "png", width, height, scale });
  await image.decode();
  [out.width, out.height] = [image.naturalWidth, image.naturalHeight];
  const pen = out.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  return pen.getImageData(0, 0, out.width, out.height);
}

async function svg() {
  const { figure, width, height, file } = place().picture();
  const text = await window.Plotly.toImage(figure, { format: "svg", width, height });
  download(`${file}.svg`, "image/svg+xml", [decodeURIComponent(text.slice(text.indexOf(",") + 1))]);
}

// A page as large as the figure, with its pixels, compressed without loss.
async function pdf() {
  const one = place().picture(), { data, width, height } = await pixels(one, SCALE), rgb = new Uint8Array(3 * width * height);
  for (let k = 0, j = 0; k < data.length; k += 4) for (let c = 0; c < 3; c++) rgb[j++] = data[k + c];
  const packed = new Uint8Array(await new Response(new Blob([rgb]).stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer());
  const [w, h] = [0.75 * one.width, 0.75 * one.height].map((size) => size.toFixed(2)); // points
  const draw = `q ${w} 0 0 ${h} 0 0 cm /I Do Q`, parts = [], at = [];
  let length = 0;
  const put = (part) => (parts.push(part), (length += part.length)); // of ASCII a character is a byte
  const object = (head, stream) => {
    at.push(length);
    put(`${at.length} 0 obj\n${head}\n`);
    if (stream) put("stream\n"), put(stream), put("\nendstream\n");
    put("endobj\n");
  };
  put("%PDF-1.4\n");
  object("<< /Type /Catalog /Pages 2 0 R >>");
  object("<< /Type /Pages /Kids [3 0 R] /Count 1 >>");
  object(`<< /Type /Page /Parent 2 0 R /MediaBox [0 0 ${w} ${h}] /Contents 4 0 R /Resources << /XObject << /I 5 0 R >> >> >>`);
  object(`<< /Length ${draw.length} >>`, draw);
  object(`<< /Type /XObject /Subtype /Image /Width ${width} /Height ${height} /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /FlateDecode /Length ${packed.length} >>`, packed);
  const table = length, rows = at.map((start) => `${String(start).padStart(10, "0")} 00000 n \n`).join("");
  put(`xref\n0 ${at.length + 1}\n0000000000 65535 f \n${rows}trailer\n<< /Size ${at.length + 1} /Root 1 0 R >>\nstartxref\n${table}\n%%EOF\n`);
  download(`${one.file}.pdf`, "application/pdf", parts);
}

// Pixels as colours of five bits a channel, and of each such colour how often it occurs and the sum of what it stands for.
class Colours {
  count = new Uint32Array(32768);
  sum = new Float64Array(3 * 32768);

  take({ data }) {
    const keys = new Uint16Array(data.length / 4);
    for (let k = 0, j = 0; k < data.length; k += 4) {
      const key = ((data[k] >> 3) << 10) | ((data[k + 1] >> 3) << 5) | (data[k + 2] >> 3);
      keys[j++] = key;
      this.count[key]++;
      for (let c = 0; c < 3; c++) this.sum[3 * key + c] += data[k + c];
    }
    return keys;
  }

  // The 256 that occur most often, and of each the nearest of those.
  palette() {
    const seen = [...this.count.keys()].filter((key) => this.count[key]), mean = (key) => [0, 1, 2].map((c) => this.sum[3 * key + c] / this.count[key]);
    const table = seen.sort((a, b) => this.count[b] - this.count[a]).slice(0, 256).map(mean), nearest = new Uint8Array(32768);
    for (const key of seen) {
      const at = mean(key), off = table.map((other) => (other[0] - at[0]) ** 2 + (other[1] - at[1]) ** 2 + (other[2] - at[2]) ** 2);
      nearest[key] = off.indexOf(Math.min(...off));
    }
    return { table: Array.from({ length: 256 }, (_, k) => (table[k] ?? [0, 0, 0]).map(Math.round)).flat(), nearest };
  }
}

// GIF's LZW of bytes: codes of 9 to 12 bits, in blocks of 255 bytes at most.
function lzw(bytes) {
  const CLEAR = 256, out = [8];
  let block = [], bits = 0, held = 0, width = 9, next = 258, codes = new Map();
  const flush = () => block.length && (out.push(block.length, ...block), (block = []));
  const emit = (code) => {
    held |= code << bits;
    for (bits += width; bits >= 8; bits -= 8, held >>>= 8) if (block.push(held & 255) === 255) flush();
  };
  emit(CLEAR);
  let before = bytes[0];
  for (let k = 1; k < bytes.length; k++) {
    const both = (before << 8) | bytes[k], known = codes.get(both);
    if (known !== undefined) {
      before = known;
      continue;
    }
    emit(before);
    if (next === 4096) {
      emit(CLEAR);
      [width, next, codes] = [9, 258, new Map()];
    } else {
      if (next === 1 << width) width++;
      codes.set(both, next++);
    }
    before = bytes[k];
  }
  emit(before);
  emit(257);
  if (bits) block.push(held & 255);
  flush();
  return [...out, 0];
}

const word = (n) => [n & 255, n >> 8];

function encode(width, height, colours, frames, delays) {
  const { table, nearest } = colours.palette(), ascii = (text) => [...text].map((letter) => letter.charCodeAt(0));
  const parts = [[...ascii("GIF89a"), ...word(width), ...word(height), 0xf7, 0, 0, ...table], [0x21, 0xff, 11, ...ascii("NETSCAPE2.0"), 3, 1, 0, 0, 0]];
  frames.forEach((keys, k) => {
    const control = [0x21, 0xf9, 4, 0, ...word(delays[k]), 0, 0], place = [0x2c, 0, 0, 0, 0, ...word(width), ...word(height), 0];
    parts.push(control, place, lzw(keys.map((key) => nearest[key])));
  });
  return [...parts, [0x3b]].map((part) => Uint8Array.from(part));
}

// All that the slider shows, one after the other; the last stays for a second and a half. The figure is then as it was.
async function gif(button) {
  const figure = place(), { steps, active } = figure.layout.sliders[0], { file, width } = figure.picture();
  const pause = Math.max(6, Math.round(360 / steps.length)), colours = new Colours(), frames = []; // pause: hundredths of a second
  const show = (k) => window.Plotly.animate(figure, ...steps[k].args);
  let shown;
  try {
    for (let k = 0; k < steps.length; k++) {
      button.textContent = `GIF ${k + 1}/${steps.length}`;
      await show(k);
      shown = await pixels(figure.picture(), Math.min(1, WIDEST / width));
      frames.push(colours.take(shown));
    }
  } finally {
    button.textContent = "GIF";
    show(active ?? 0);
  }
  const delays = steps.map((_, k) => (k === steps.length - 1 ? 150 : pause));
  download(`${file}.gif`, "image/gif", encode(shown.width, shown.height, colours, frames, delays));
}

async function copy(button) {
  const box = document.createElement("textarea");
  try {
    await navigator.clipboard.writeText(location.href);
  } catch { // without https there is no such clipboard
    box.value = location.href;
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
    button.focus();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy link"), 2000);
}

const WORK = { PNG: () => place().save(), SVG: svg, PDF: pdf, GIF: gif, "Copy link": copy };

export default function ({ parentElement }) {
  for (const button of parentElement.querySelectorAll("button")) {
    const work = WORK[button.textContent];
    if (work) button.onclick = async () => {
      button.disabled = true;
      try {
        if (place()) await work(button);
      } finally {
        button.disabled = false;
      }
    };
  }
}
