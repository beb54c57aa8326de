  // The sub-second heatmap: a column per second, a row per moment within it. Selected cells filter
  // the flame graph to their samples.
  const heat = (() => {
    const holder = document.getElementById("heat-data");
    if (!holder) return null;
    const raw = JSON.parse(holder.textContent), panel = $("heat"), sheet = $("cells");
    const ink = sheet.getContext("2d"), { columns, rows } = raw, count = columns * rows;
    const packed = (text, Kind) => {
      const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
      return new Kind(bytes.buffer);
    };
    const first = packed(raw.first, Uint32Array), weight = packed(raw.weights, Uint16Array);
    const box = packed(raw.boxes, raw.wide ? Uint32Array : Uint16Array);
    const sums = new Float64Array(count);
    for (let cell = 0; cell < count; cell++) {
      for (let k = first[cell]; k < first[cell + 1]; k++) sums[cell] += weight[k] * raw.unit;
    }
    const most = sums.reduce((a, b) => Math.max(a, b), 0) || 1;
    let from = -1, to = -1, cursor = 0, dragging = false, chosen = () => {};

    const tall = () => sheet.height / (window.devicePixelRatio || 1) / rows;
    const broad = () => Math.min(32, (panel.clientWidth - 24) / columns);
    function paint() {
      if (panel.hidden) return;
      const ratio = window.devicePixelRatio || 1, wide = broad(), high = 3;
      sheet.style.width = wide * columns + "px"; sheet.style.height = high * rows + "px";
      sheet.width = Math.max(1, Math.round(wide * columns * ratio)); sheet.height = high * rows * ratio;
      ink.setTransform(ratio, 0, 0, ratio, 0, 0);
      const low = Math.min(from, to), top = Math.max(from, to);
      for (let cell = 0; cell < count; cell++) {
        const x = Math.floor(cell / rows) * wide, y = (rows - 1 - (cell % rows)) * high;
        const level = sums[cell] ? Math.min(5, Math.max(1, Math.ceil((5 * sums[cell]) / most - 1e-9))) : 0;
        ink.globalAlpha = from >= 0 && (cell < low || cell > top) ? 0.35 : 1;
        ink.fillStyle = colours["self-" + level];
        ink.fillRect(x, y, Math.max(0.5, wide - (wide > 4 ? 0.5 : 0)), high - 0.4);
      }
      ink.globalAlpha = 1;
      if (document.activeElement === sheet) {
        ink.strokeStyle = colours.focus; ink.lineWidth = 2;
        ink.strokeRect(Math.floor(cursor / rows) * wide, (rows - 1 - (cursor % rows)) * high, Math.max(3, wide), 4);
      }
    }
    const clock = (cell) => {
      const ms = (Math.floor(cell / rows) * raw.seconds + (cell % rows) / rows) * 1000;
      return raw.utc ? new Date(raw.start + ms).toISOString().slice(11, 23) : (ms / 1000).toFixed(2) + " s";
    };
    function cellAt(event) {
      const area = sheet.getBoundingClientRect();
      const column = Math.floor((event.clientX - area.left) / broad());
      const row = rows - 1 - Math.floor((event.clientY - area.top) / tall());
      return Math.max(0, Math.min(columns - 1, column)) * rows + Math.max(0, Math.min(rows - 1, row));
    }
    const told = (cell) => `${clock(cell)}: ${amount(sums[cell])}`;
    function tell() {
      let sum = 0;
      for (let cell = Math.min(from, to); from >= 0 && cell <= Math.max(from, to); cell++) sum += sums[cell];
      $("moment").textContent = from < 0 ? told(cursor) + " (click or drag to select)"
        : `${clock(Math.min(from, to))} to ${clock(Math.max(from, to) + 1)}: ${amount(sum)}`;
    }
    function select(a, b) { from = a; to = b; cursor = b; tell(); paint(); chosen(); }
    function clear() { if (from >= 0) { from = to = -1; tell(); paint(); chosen(); } }
    sheet.addEventListener("pointerdown", (event) => {
      dragging = true; from = to = cursor = cellAt(event);
      sheet.setPointerCapture(event.pointerId); sheet.focus({ preventScroll: true });
      tell(); paint();
    });
    sheet.addEventListener("pointermove", (event) => {
      if (!dragging) { if (from < 0) { cursor = cellAt(event); tell(); } return; }
      to = cursor = cellAt(event); tell(); paint();
    });
    sheet.addEventListener("pointerup", () => { if (dragging) { dragging = false; select(from, to); } });
    sheet.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowDown: -1, ArrowRight: rows, ArrowLeft: -rows }[event.key];
      if (step) {
        cursor = Math.max(0, Math.min(count - 1, cursor + step));
        if (event.shiftKey && from >= 0) select(from, cursor);
        else { tell(); paint(); }
      } else if (event.key === "Enter" || event.key === " ") select(cursor, cursor);
      else return;
      event.preventDefault();
    });
    sheet.addEventListener("focus", paint);
    sheet.addEventListener("blur", paint);
    // The weight of the selected cells in each box of the call tree, or null without a selection.
    function own(n) {
      if (from < 0) return null;
      const sum = new Float64Array(n);
      for (let k = first[Math.min(from, to)]; k < first[Math.max(from, to) + 1]; k++) sum[box[k]] += weight[k] * raw.unit;
      return sum;
    }
    tell();
    return { panel, paint, own, clear, select, when: (act) => { chosen = act; } };
  })();
