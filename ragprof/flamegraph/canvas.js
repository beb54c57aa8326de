  // The picture: places of the boxes, colours, drawing, and which box a point lies in.
  const $ = (id) => document.getElementById(id);
  const graph = $("graph"), canvas = $("canvas"), pen = canvas.getContext("2d");
  const ROW = matchMedia("(pointer:coarse)").matches ? 26 : 19;
  const FONT = getComputedStyle(document.body).fontFamily;
  const state = {
    tree: null, focus: 0, chosen: 0, found: null, levels: 1,
    view: "calls", order: "name", colour: two ? "difference" : "module", width: "this",
    normalized: data.normalized, hot: data.selfs, filtered: false,
  };
  let colours = {};

  // The baseline, scaled to the same total where shares are compared.
  const factor = () => {
    const tree = state.tree;
    return state.normalized && tree.before[0] ? tree.value[0] / tree.before[0] : 1;
  };
  const before = (i) => state.tree.before[i] * factor();
  const size = (i) => {
    const tree = state.tree;
    return state.width === "before" ? tree.before[i] : state.width === "both" ? tree.value[i] + before(i) : tree.value[i];
  };
  const total = () => size(0) || 1;

  // Positions as shares of the width: the focus and what leads to it fill it, the rest is hidden.
  function place() {
    const tree = ordered(state.tree, size, state.order), focus = state.focus;
    tree.x.fill(0); tree.w.fill(0);
    for (let i = focus; i >= 0; i = tree.parent[i]) tree.w[i] = 1;
    const whole = size(focus) || 1, stack = [focus];
    let levels = tree.row[focus] + 1;
    while (stack.length) {
      const at = stack.pop(), next = [tree.x[at], tree.x[at]];
      for (const child of tree.children[at]) {
        const share = size(child) / whole, part = tree.callers && tree.callers[child] ? 1 : 0;
        tree.x[child] = tree.left ? (tree.left[child] - tree.left[focus]) / whole : next[part];
        tree.w[child] = share;
        next[part] += share;
        if (share > 0) {
          levels = Math.max(levels, tree.row[child] + 1);
          stack.push(child);
        }
      }
    }
    state.levels = levels;
    $("spacer").style.height = levels * ROW + 8 + "px";
  }

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    colours = {};
    for (const key of data.palette) colours[key] = style.getPropertyValue("--" + key).trim();
  }

  const change = (i) => (state.tree.value[i] - before(i)) / (state.tree.value[0] || before(0) || 1);
  function colourName(i) {
    const frame = state.tree.frame[i];
    if (state.colour === "module") return frame < 0 ? "same-0" : data.colours[frame];
    if (state.colour === "self") {
      const share = frame < 0 ? 0 : state.hot[frame] / (state.tree.value[0] || 1);
      return "self-" + data.selfSteps.filter((step) => share >= step).length;
    }
    const by = change(i), strength = data.steps.filter((step) => Math.abs(by) >= step).length;
    return strength ? (by > 0 ? "more-" : "less-") + (strength - 1) : "same-0";
  }
  const inkOn = (key) => (/^(more|less)-2|^self-[45]/.test(key) ? "strong-ink" : "box-ink");

  function draw() {
    const tree = state.tree, found = state.found;
    const wide = graph.clientWidth, high = graph.clientHeight, ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio); canvas.height = Math.round(high * ratio);
      canvas.style.width = wide + "px"; canvas.style.height = high + "px";
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, wide, high);
    pen.font = "12px " + FONT;
    pen.textBaseline = "middle";
    const letter = pen.measureText("abcdefghijklmnopqrstuvwxyz._").width / 28;
    const top = graph.scrollTop, focusDepth = tree.depth[state.focus];
    for (let i = 0; i < tree.n; i++) {
      const y = tree.row[i] * ROW + 4 - top, w = tree.w[i] * wide;
      if (w < 0.3 || y + ROW < 0 || y > high) continue;
      const x = tree.x[i] * wide, key = colourName(i), hit = found && found[i];
      pen.globalAlpha = tree.depth[i] < focusDepth ? 0.55 : found && !hit ? 0.45 : 1;
      pen.fillStyle = hit ? colours.found : colours[key];
      pen.fillRect(x, y, Math.max(0.4, w - (w > 3 ? 1 : 0)), ROW - 1);
      if (w > letter * 4) {
        pen.fillStyle = colours[hit ? "found-ink" : inkOn(key)];
        let room = Math.floor((w - 7) / letter), text = fit(name(tree, i), room);
        while (text && pen.measureText(text).width > w - 6) text = fit(name(tree, i), --room);
        pen.fillText(text, x + 4, y + ROW / 2);
      }
    }
    pen.globalAlpha = 1;
    const chosen = state.chosen;
    if ((document.activeElement === graph || chosen) && tree.w[chosen] > 0) {
      pen.strokeStyle = colours.focus; pen.lineWidth = 2;
      pen.strokeRect(tree.x[chosen] * wide + 1, tree.row[chosen] * ROW + 5 - top,
        Math.max(2, tree.w[chosen] * wide - 3), ROW - 3);
    }
  }
  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }

  // A name that does not fit loses its module first, then its end.
  function fit(text, room) {
    if (text.length > room) text = text.slice(text.lastIndexOf(":") + 1);
    return text.length <= room ? text : room < 3 ? "" : text.slice(0, room - 1) + "…";
  }

  function amount(number, sign) {
    const scaled = Math.abs(number) * data.factor;
    const [unit, suffix] = data.units.find(([step]) => scaled >= step) || data.units[data.units.length - 1];
    const shown = scaled / unit, digits = shown >= 100 || Number.isInteger(shown) ? 0 : shown >= 10 ? 1 : 2;
    const mark = number < 0 ? "−" : sign && number > 0 ? "+" : "";
    return (mark + shown.toFixed(digits) + " " + suffix).trim();
  }
  const percent = (share, sign) => (share < 0 ? "−" : sign && share > 0 ? "+" : "") +
    (Math.abs(share) * 100).toFixed(Math.abs(share) >= 0.9995 ? 0 : Math.abs(share) >= 0.01 || !share ? 1 : 2) + " %";

  function at(event) {
    const tree = state.tree, box = canvas.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const row = Math.floor((event.clientY - box.top + graph.scrollTop - 4) / ROW);
    for (let i = 0; i < tree.n; i++) {
      if (tree.row[i] === row && tree.w[i] > 0 && share >= tree.x[i] && share < tree.x[i] + tree.w[i]) return i;
    }
    return -1;
  }
