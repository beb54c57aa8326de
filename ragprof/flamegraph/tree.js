  // Trees. Parents come before children; value[i] = own[i] + cut[i] + the values of its children,
  // where cut is what lies in boxes too small to be on the page.
  const data = JSON.parse(document.getElementById("data").textContent);
  const two = data.before;

  function decoded(raw) {
    const n = raw.frame.length, parent = new Int32Array(n);
    for (let i = 0, last = 0; i < n; i++) parent[i] = last += raw.up[i];
    const none = two ? new Float64Array(n) : null;
    return {
      n, parent, frame: raw.frame, own: raw.own, cut: raw.cut, left: raw.left || null,
      beforeOwn: raw.beforeOwn || none, beforeCut: raw.beforeCut || none, callers: null,
    };
  }

  // Sums, rows and children of a tree. In a sandwich, callers[i] says that a box lies above.
  function finished(tree) {
    const n = tree.n, value = new Float64Array(n), before = new Float64Array(n);
    const depth = new Int32Array(n), row = new Int32Array(n);
    const children = Array.from({ length: n }, () => []);
    let above = 0;
    for (let i = n - 1; i >= 0; i--) {
      value[i] += tree.own[i] + tree.cut[i];
      if (two) before[i] += tree.beforeOwn[i] + tree.beforeCut[i];
      const up = tree.parent[i];
      if (i && !(up === 0 && tree.callers && tree.callers[i])) {
        value[up] += value[i];
        before[up] += before[i];
      }
    }
    for (let i = 1; i < n; i++) {
      depth[i] = depth[tree.parent[i]] + 1;
      children[tree.parent[i]].push(i);
      if (tree.callers && tree.callers[i]) above = Math.max(above, depth[i]);
    }
    for (let i = 0; i < n; i++) row[i] = above + (tree.callers && tree.callers[i] ? -depth[i] : depth[i]);
    return Object.assign(tree, {
      value, before, depth, row, children, x: new Float64Array(n), w: new Float64Array(n),
    });
  }

  // A tree that grows child by child, equal frames below one box joined.
  function growing(rootFrame) {
    const tree = {
      n: 1, frame: [rootFrame], parent: [-1], own: [0], cut: [0], left: null,
      beforeOwn: [0], beforeCut: [0], callers: [0],
    };
    const index = [new Map()];
    tree.child = (at, frame, caller) => {
      const key = frame * 2 + caller;
      let next = index[at].get(key);
      if (next === undefined) {
        next = tree.n++;
        index[at].set(key, next);
        index.push(new Map());
        tree.frame.push(frame); tree.parent.push(at); tree.callers.push(caller);
        for (const part of [tree.own, tree.cut, tree.beforeOwn, tree.beforeCut]) part.push(0);
      }
      return next;
    };
    tree.add = (at, source, i) => {
      tree.own[at] += source.own[i]; tree.cut[at] += source.cut[i];
      if (two) { tree.beforeOwn[at] += source.beforeOwn[i]; tree.beforeCut[at] += source.beforeCut[i]; }
    };
    return tree;
  }

  // Innermost functions first: the own weight of every box goes up the chain of its callers.
  function invertedTree(source) {
    const tree = growing(-1);
    for (let i = 0; i < source.n; i++) {
      tree.cut[0] += source.cut[i];
      if (two) tree.beforeCut[0] += source.beforeCut[i];
      if (!source.own[i] && !(two && source.beforeOwn[i])) continue;
      let at = 0;
      for (let j = i; j > 0; j = source.parent[j]) at = tree.child(at, source.frame[j], 0);
      tree.own[at] += source.own[i];
      if (two) tree.beforeOwn[at] += source.beforeOwn[i];
    }
    tree.callers = null;
    return finished(tree);
  }

  // One function: what it calls hangs below, who calls it stands above. Of recursion the outermost
  // call counts, so that no weight is there twice.
  function sandwichTree(source, frame) {
    const tree = growing(frame), to = new Int32Array(source.n).fill(-1);
    for (let i = 1; i < source.n; i++) {
      const up = source.parent[i];
      if (to[up] >= 0) to[i] = tree.child(to[up], source.frame[i], 0);
      else if (source.frame[i] === frame) {
        to[i] = 0;
        let at = 0;
        for (let j = up; j > 0; j = source.parent[j]) at = tree.child(at, source.frame[j], 1);
        if (at) {
          tree.own[at] += source.value[i];
          if (two) tree.beforeOwn[at] += source.before[i];
        }
      }
      if (to[i] >= 0) tree.add(to[i], source, i);
    }
    return finished(tree);
  }

  const name = (tree, i) => (tree.frame[i] < 0 ? "all" : data.names[tree.frame[i]]);

  // Siblings by name or by weight; a tree with left edges keeps the order of time.
  function ordered(tree, size, order) {
    const key = tree.order === order ? null : order;
    if (tree.left || !key) return tree;
    for (const list of tree.children) {
      if (list.length < 2) continue;
      if (order === "weight") list.sort((a, b) => size(b) - size(a) || a - b);
      else list.sort((a, b) => (name(tree, a) < name(tree, b) ? -1 : name(tree, a) > name(tree, b) ? 1 : a - b));
    }
    tree.order = order === "weight" ? null : order; // sizes change with what is shown
    return tree;
  }
