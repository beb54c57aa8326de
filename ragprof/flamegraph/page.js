  // The page: views, search, keyboard, tooltips and the rest around the picture.
  const whole = finished(decoded(data.calls));
  let calls = whole, sandwichOf = -1, made = { calls };

  function extra(id) {
    const holder = $(id + "-data");
    return holder ? finished(decoded(JSON.parse(holder.textContent))) : null;
  }
  const makers = {
    calls: () => calls,
    callers: () => (calls === whole && extra("callers")) || invertedTree(calls),
    sandwich: () => sandwichTree(calls, sandwichOf),
    time: () => extra("time"),
  };
  function show(view) {
    if (view === "sandwich") {
      const frame = state.tree.frame[state.chosen];
      sandwichOf = frame >= 0 ? frame : sandwichOf >= 0 ? sandwichOf : hottest();
      if (sandwichOf < 0) return;
      delete made.sandwich;
    }
    state.view = view;
    state.tree = made[view] = made[view] || makers[view]();
    $("view").value = view;
    document.body.dataset.view = view;
    $("order").disabled = view === "time";
    zoom(0);
    if (view === "sandwich") graph.scrollTop = Math.max(0, state.tree.row[0] * ROW - graph.clientHeight / 2);
  }
  const hottest = () => state.hot.reduce((best, own, i) => (own > (best < 0 ? 0 : state.hot[best]) ? i : best), -1);

  function facts(i) {
    const tree = state.tree, frame = tree.frame[i];
    const lines = [`${amount(tree.value[i])}, ${percent(tree.value[i] / (tree.value[0] || 1))} of the whole` +
      (tree.own[i] ? `; itself ${amount(tree.own[i])}` : "")];
    if (two) {
      const now = tree.value[i], then = before(i);
      const side = !then && now ? ": only in this profile" : !now && then ? ": only in the baseline" : "";
      lines.push(`baseline ${amount(then)}${state.normalized ? " (scaled)" : ""}, difference ${amount(now - then, true)}${side}`);
    }
    if (tree.cut[i]) lines.push(`${amount(tree.cut[i])} in boxes too small to draw`);
    if (state.view === "sandwich" && !i && calls === whole && data.totals[frame] > tree.value[0] * 1.0005) {
      lines.push(`${percent(1 - tree.value[0] / data.totals[frame])} of its time lies in boxes too small for this page`);
    }
    const where = frame >= 0 ? data.places[frame] : "";
    if (where) lines.push(where);
    return lines;
  }
  function describe(element, i) {
    const title = document.createElement("b");
    title.textContent = name(state.tree, i);
    element.replaceChildren(title);
    for (const line of facts(i)) {
      element.append(line, element.id === "tip" ? document.createElement("br") : " · ");
    }
    element.lastChild.remove();
    if (element.id !== "tip") title.after(" ");
  }

  function choose(i) {
    state.chosen = i;
    describe($("details"), i);
    $("copy").disabled = state.tree.frame[i] < 0;
    const y = state.tree.row[i] * ROW;
    if (y < graph.scrollTop) graph.scrollTop = y;
    if (y + ROW + 8 > graph.scrollTop + graph.clientHeight) graph.scrollTop = y + ROW + 8 - graph.clientHeight;
    redraw();
  }
  function zoom(i) {
    if (i && !(size(i) > 0)) return;
    state.focus = i;
    place(); choose(i); search();
    document.body.dataset.focus = name(state.tree, i);
  }

  function search() {
    const text = $("search").value, tree = state.tree;
    $("search").setAttribute("aria-invalid", "false");
    $("reset").disabled = !state.focus && !text && calls === whole;
    state.found = null;
    $("share").textContent = "";
    if (text) {
      let pattern;
      try { pattern = new RegExp(text, "i"); } catch {
        $("search").setAttribute("aria-invalid", "true");
        $("share").textContent = "not a regular expression";
        redraw();
        return;
      }
      const matches = data.names.map((one) => pattern.test(one));
      const found = new Uint8Array(tree.n), inside = new Uint8Array(tree.n);
      let sum = 0, boxes = 0;
      for (let i = 0; i < tree.n; i++) {
        inside[i] = i ? inside[tree.parent[i]] : 0;
        if (tree.callers && tree.callers[i]) inside[i] = 1; // the callers' weight is the function's
        if (tree.frame[i] < 0 || !matches[tree.frame[i]]) continue;
        found[i] = 1;
        boxes++;
        if (!inside[i]) sum += size(i); // a box below a match is already counted
        inside[i] = 1;
      }
      state.found = found;
      $("share").textContent = boxes ? `${percent(sum / total())} matched` : "no match";
    }
    redraw();
  }

  function legend() {
    const shares = (keys, steps) => keys.map((key, k) => [key, "≥ " + percent(steps[k])]);
    const rows = state.colour === "module" ? data.legend
      : state.colour === "self" ? [["self-0", "less"], ...shares(data.selfSteps.map((_, k) => "self-" + (k + 1)), data.selfSteps)]
        : [...[2, 1, 0].map((k) => ["less-" + k, "−" + percent(data.steps[k])]), ["same-0", "same"],
          ...[0, 1, 2].map((k) => ["more-" + k, "+" + percent(data.steps[k])])];
    const lead = { module: "", self: "time of the function itself, of the whole:",
      difference: "blue less, red more than the baseline, of the whole:" }[state.colour];
    $("legend").replaceChildren(lead, lead ? " " : "", ...rows.map(([key, text]) => {
      const entry = document.createElement("span"), box = document.createElement("i");
      box.style.background = `var(--${key})`;
      entry.append(box, text);
      return entry;
    }));
  }

  function reset() {
    $("search").value = "";
    if (heat) heat.clear();
    zoom(0);
  }

  // Moves: up and down among rows, left and right among siblings.
  function move(key) {
    const tree = state.tree, at = state.chosen, up = tree.parent[at];
    const above = (i) => (tree.callers && tree.callers[i] ? 1 : 0);
    const widest = (part) => tree.children[at].reduce((best, i) =>
      (above(i) === part && size(i) > 0 && (best < 0 || size(i) > size(best)) ? i : best), -1);
    if (key === "ArrowUp" || key === "ArrowDown") {
      const upward = key === "ArrowUp";
      if (at && above(at)) return upward ? widest(1) : up;
      return upward ? (at ? up : widest(1)) : widest(0);
    }
    if (up < 0) return at;
    const row = tree.children[up].filter((i) => tree.w[i] > 0 && above(i) === above(at));
    return row[row.indexOf(at) + (key === "ArrowLeft" ? -1 : 1)];
  }

  function copy() {
    const frame = state.tree.frame[state.chosen];
    if (frame < 0) return;
    const text = data.names[frame] + (data.places[frame] ? ` (${data.places[frame]})` : "");
    const told = () => { $("share").textContent = "copied"; document.body.dataset.copied = text; };
    const byHand = () => { // a sandboxed frame has no clipboard of its own
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      graph.focus({ preventScroll: true });
      if (done) told(); else $("share").textContent = "the browser does not allow copying here";
    };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(told, byHand);
    else byHand();
  }

  graph.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow")) {
      const next = move(event.key);
      if (next !== undefined && next >= 0) choose(next);
    } else if (event.key === "Enter" || event.key === " ") zoom(state.chosen);
    else if (event.key === "Home") choose(state.focus);
    else return;
    event.preventDefault();
  });
  const views = [...$("view").options].map((option) => option.value);
  document.addEventListener("keydown", (event) => {
    const typing = event.target === $("search");
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    if (event.key === "Escape") { reset(); graph.focus(); }
    else if (event.key === "Enter" && typing) graph.focus();
    else if (typing) return;
    else if (event.key === "/") { $("search").focus(); $("search").select(); }
    else if (event.key === "c") copy();
    else if (event.key === "i") show(state.view === "callers" ? "calls" : "callers");
    else if (event.key >= "1" && event.key <= String(views.length)) show(views[event.key - 1]);
    else return;
    event.preventDefault();
  });

  const tip = $("tip");
  canvas.addEventListener("mousemove", (event) => {
    const i = at(event);
    tip.hidden = i < 0;
    if (i < 0) return;
    describe(tip, i);
    const right = event.clientX + 14 + tip.offsetWidth > innerWidth;
    const below = event.clientY + 18 + tip.offsetHeight > innerHeight;
    tip.style.left = Math.max(4, right ? event.clientX - tip.offsetWidth - 10 : event.clientX + 14) + "px";
    tip.style.top = Math.max(4, below ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18) + "px";
  });
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
  canvas.addEventListener("click", (event) => {
    const i = at(event);
    graph.focus({ preventScroll: true });
    tip.hidden = true;
    if (i >= 0) zoom(i);
  });
  graph.addEventListener("scroll", () => { tip.hidden = true; redraw(); });
  graph.addEventListener("focus", redraw);
  graph.addEventListener("blur", redraw);
  $("search").addEventListener("input", search);
  $("reset").addEventListener("click", reset);
  $("copy").addEventListener("click", copy);
  $("view").addEventListener("change", (event) => show(event.target.value));
  $("order").addEventListener("change", (event) => { state.order = event.target.value; zoom(state.focus); });
  $("colour").addEventListener("change", (event) => { state.colour = event.target.value; legend(); redraw(); });
  if (two) {
    $("width").addEventListener("change", (event) => { state.width = event.target.value; zoom(0); });
    $("compare").addEventListener("change", (event) => { state.normalized = event.target.value === "normalised"; zoom(0); });
  }
  for (const button of document.querySelectorAll("button[data-frame]")) {
    button.addEventListener("click", () => {
      sandwichOf = Number(button.dataset.frame);
      state.chosen = 0; state.tree = whole;
      show("sandwich");
      graph.focus();
    });
  }
  $("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).getPropertyValue("--scheme").trim() === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    restyle();
  });
  const restyle = () => { readColours(); legend(); redraw(); if (heat) heat.paint(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  matchMedia("print").addEventListener("change", restyle);
  new ResizeObserver(() => { draw(); if (heat) heat.paint(); }).observe(graph);
  if (heat) {
    const timed = [...$("view").options].find((option) => option.value === "time");
    heat.when(() => {
      const own = heat.own(whole.n);
      calls = own ? finished({ ...whole, own, cut: new Float64Array(whole.n) }) : whole;
      state.hot = data.selfs;
      if (own) {
        state.hot = new Float64Array(data.selfs.length);
        for (let i = 1; i < calls.n; i++) state.hot[calls.frame[i]] += own[i];
      }
      made = { calls };
      timed.disabled = Boolean(own);
      show(state.view === "time" && own ? "calls" : state.view);
    });
    $("heatmap").addEventListener("click", () => {
      heat.panel.hidden = !heat.panel.hidden;
      $("heatmap").setAttribute("aria-pressed", String(!heat.panel.hidden));
      heat.paint();
    });
  }

  readColours();
  legend();
  state.tree = calls;
  show("calls");
  document.body.dataset.ready = "true";
  performance.mark("drawn");
