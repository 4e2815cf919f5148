// Leads from a dropped picture to its enlarged file.
'use strict';
(async function () {
  const $ = (id) => document.getElementById(id);
  const server = window.cdmServer;
  const viewer = window.cdmViewer;
  const overview = window.cdmOverview;
  const GUESSES = 4;
  const MOST_GUESSES = 8;
  let about;
  let current = null;  // the key of the picture that is shown
  let view = null;  // what is known of it
  let stopWatching = () => {};
  let sending = null;
  let hoped = null;  // the layer that is shown as soon as it comes

  function complain(error) {
    if (!error) return;  // It was cancelled.
    $('problem').textContent = error.message || String(error);
    $('problem').hidden = false;
  }

  const calm = () => { $('problem').hidden = true; };

  function options(select, wanted, chosen) {
    const now = chosen ?? select.value;
    select.replaceChildren(...wanted.map(([value, text]) => {
      const option = document.createElement('option');
      option.value = value;
      option.textContent = text;
      return option;
    }));
    select.value = wanted.some(([value]) => value === now) ? now : wanted[0]?.[0];
  }

  // The layers of the part, or of the whole result, by name.
  function shownLayers() {
    const whole = $('view').value === 'whole' && view.found.whole;
    const from = whole ? view.found.whole : view.found.part;
    return (from && from.layers) || [];
  }

  function label(layer) {
    return {
      bicubic: 'interpolation alone (bicubic)', mean: 'faithful',
      map: 'where the guesses disagree', result: 'the result',
    }[layer.kind] || `guess ${layer.seed + 1}`;
  }

  const order = ['bicubic', 'mean', 'sample', 'result', 'map'];

  function fillLayers() {
    const layers = [...shownLayers()].sort((a, b) =>
      order.indexOf(a.kind) - order.indexOf(b.kind) || a.seed - b.seed);
    const wanted = layers.map((layer) => [layer.name, label(layer)]);
    if (!wanted.length) return;
    const best = layers.find((layer) => layer.kind === 'sample') ||
      layers.find((layer) => ['mean', 'result'].includes(layer.kind)) || layers[0];
    if (wanted.some(([name]) => name === hoped)) {
      $('right').append(new Option('', hoped));
      $('right').value = hoped;
      $('right').dataset.chosen = 'yes';
      hoped = null;
    }
    const had = (select) => wanted.some(([name]) => name === select.value) &&
      select.dataset.chosen === 'yes';
    options($('left'), wanted, had($('left')) ? $('left').value : layers[0].name);
    options($('right'), wanted, had($('right')) ? $('right').value : best.name);
  }

  function layerOf(name) {
    const layers = shownLayers();
    const layer = layers.find((one) => one.name === name);
    if (!layer) return null;
    const shown = {
      name, label: label(layer), address: server.media(current, layer.file),
    };
    const mean = layers.find((one) => one.kind === 'mean');
    if (about.mean && layer.kind === 'sample' && mean) {
      shown.mean = server.media(current, mean.file);
      shown.detail = $('detail').value / 100;
    }
    return shown;
  }

  async function showLayers() {
    try {
      for (const [select, canvas] of [['left', 'before'], ['right', 'after']]) {
        const layer = layerOf($(select).value);
        if (layer) await viewer.show(canvas, layer);
      }
    } catch (error) {
      complain(error);
    }
    const kinds = ['left', 'right'].map((id) => $(id).value);
    $('legend').hidden = !kinds.includes('map');
  }

  function tellDetail() {
    const value = $('detail').value / 100;
    $('detail-told').textContent = value === 0 ? '0: nothing is invented' :
      value.toFixed(2);
  }

  const scale = () => Number($('scale').value);

  function tellSize() {
    const found = view && view.found.picture;
    if (!found) return;
    const [w, h] = [found.width, found.height].map((v) => Math.round(v * scale()));
    const large = scale() > about.factor ? ` More than ${about.factor} times: ` +
      'the picture passes through the model twice, and what the first pass made ' +
      'up is taken for real.' : '';
    $('becomes').textContent = scale() >= 1 && scale() <= 16 ?
      `${w.toLocaleString('en')} × ${h.toLocaleString('en')} pixels.${large}` : '';
  }

  function partSizes(found) {
    const most = Math.sqrt(about.limits.shown_pixels) / scale();
    const whole = Math.max(found.height, found.width);
    const fits = found.height * found.width * scale() ** 2 <= about.limits.shown_pixels;
    const sides = [about.part / 2, about.part, 2 * about.part].filter(
        (side) => side < whole && side <= most);
    const wanted = sides.map((side) => [String(side), `${side} pixels`]);
    if (fits) wanted.push([String(whole), 'the whole picture']);
    options($('part-size'), wanted, $('part-size').value || String(about.part));
    if (!wanted.some(([value]) => value === $('part-size').value)) {
      $('part-size').value = wanted[wanted.length - 1][0];
    }
  }

  function tellPicture() {
    const found = view.found.picture;
    $('name').textContent = view.name;
    $('facts').textContent = `${found.kind}, ${found.width.toLocaleString('en')} × ` +
      `${found.height.toLocaleString('en')} pixels, ${found.bits} bits` +
      (found.alpha ? ', with transparency' : '') +
      (found.metadata.length ? `; with ${found.metadata.join(', ')}` : '');
    $('notes').replaceChildren(...found.notes.map((text) => {
      const item = document.createElement('li');
      item.textContent = `Note: ${text}.`;
      return item;
    }));
    $('overview').src = server.media(current, found.overview);
    partSizes(found);
    const known = view.found.part;
    overview.set(found, known || found.part);
    if (!known) overview.resize(Number($('part-size').value));
    tellSize();
  }

  function tellFiles() {
    $('files').replaceChildren(...view.files.map((file, number) => {
      const item = document.createElement('li');
      const link = document.createElement('a');
      link.className = 'file';
      link.href = server.download(current, number);
      link.download = '';
      link.textContent = `Download ${file.kind}, ${file.width} × ${file.height}`;
      const told = document.createElement('p');
      told.className = 'quiet';
      const parts = [`${(file.bytes / 1e6).toFixed(2)} MB`];
      if (file.detail !== null) parts.push(`detail ${file.detail.toFixed(2)}`);
      if (about.draws) parts.push(`guess ${file.seed + 1} (seed ${file.seed})`);
      parts.push(file.strip ? 'without metadata' : 'with its metadata');
      told.textContent = [parts.join(', ') + '.', ...file.notes].join(' ');
      item.append(link, told);
      return item;
    }));
  }

  let shownFiles = 0;
  let seenLayers = '';

  async function take(found) {
    const first = !view || !view.found.picture;
    view = found;
    window.cdmBusy(view);
    if (view.state === 'failed' && view.error) complain({message: view.error});
    if (!view.found.picture) return;
    $('work').hidden = false;
    document.body.classList.add('working');
    if (first) {
      tellPicture();
      thumbnails();
    }
    if (view.files.length !== shownFiles) {
      shownFiles = view.files.length;
      tellFiles();
      const whole = $('view').querySelector('[value="whole"]');
      whole.disabled = !view.found.whole;
      if (view.found.whole) chooseView('whole');
    }
    const layers = JSON.stringify([$('view').value, shownLayers()]);
    if (layers !== seenLayers) {
      seenLayers = layers;
      fillLayers();
      await showLayers();
    }
    if (first && !view.found.part && view.state === 'done') look(overview.part());
  }

  function chooseView(value) {
    $('view').value = value;
    for (const id of ['left', 'right']) delete $(id).dataset.chosen;
    seenLayers = '';
  }

  function gone(key) {
    server.keep(server.kept().filter((one) => one !== key));
    if (key === current) close();
    thumbnails();
  }

  function close() {
    stopWatching();
    current = view = null;
    $('work').hidden = true;
    document.body.classList.remove('working');
    window.cdmBusy(null);
  }

  async function begin(what) {
    calm();
    try {
      await what();
      stopWatching();
      stopWatching = server.watch(current, take, () => gone(current));
    } catch (error) {
      complain(error);
    }
  }

  async function open(key, wanted = () => {}) {
    close();
    current = key;
    shownFiles = 0;
    seenLayers = '';
    chooseView('part');
    viewer.forget();
    await begin(wanted);
  }

  const classOf = () => about.num_classes && $('class').value !== '' ?
    Number($('class').value) : null;

  // Looks at a part; more guesses of the same part keep those that there are.
  function look(part, more = {}) {
    chooseView('part');
    return begin(async () => {
      if (['waiting', 'working'].includes(view.state)) await server.stop(current);
      await server.part(current, {
        ...part, scale: scale(), seed: 0, seeds: GUESSES, label: classOf(),
        map: false, ...more,
      });
    });
  }

  function seedOf() {
    const layer = (view.found.part?.layers || []).find(
        (one) => one.name === $('right').value);
    return layer && layer.seed !== null ? layer.seed : 0;
  }

  function make() {
    return begin(() => server.file(current, {
      scale: scale(), seed: seedOf(), detail: $('detail').value / 100,
      strip: $('strip').checked, format: $('format').value || null,
      label: classOf(),
    }));
  }

  async function give(file) {
    calm();
    if (!file) return;
    if (file.size > about.limits.upload_bytes) {
      complain({message: `${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MB; ` +
        `this page takes ${about.limits.upload_bytes / 2 ** 20} MB at most.`});
      return;
    }
    close();
    const told = {state: 'sending', what: '', done: 0, total: 1};
    window.cdmBusy(told);
    sending = server.upload(file, (share) => window.cdmBusy({...told, done: share}));
    try {
      const key = await sending.promise;
      sending = null;
      server.keep([...server.kept(), key]);
      $('scale').value = about.factor;
      $('part-size').replaceChildren();
      await open(key);
    } catch (error) {
      sending = null;
      window.cdmBusy(null);
      complain(error);
    }
  }

  async function thumbnails() {
    const items = [];
    for (const key of [...server.kept()].reverse()) {
      let known;
      try {
        known = key === current && view ? view : await server.look(key);
      } catch (error) {
        if (error instanceof server.Refused) {
          server.keep(server.kept().filter((one) => one !== key));
        }
        continue;
      }
      const item = document.createElement('li');
      if (known.found.picture) {
        const image = document.createElement('img');
        image.src = server.media(key, known.found.picture.overview);
        image.alt = '';
        item.append(image);
      }
      for (const [text, call] of [
        [known.name, () => open(key)],
        ['Remove', async () => {
          try { await server.remove(key); } catch (error) { complain(error); }
          gone(key);
        }],
      ]) {
        const button = document.createElement('button');
        button.type = 'button';
        button.className = 'open';
        button.textContent = text;
        if (text === 'Remove') button.setAttribute('aria-label', `Remove ${known.name}`);
        button.addEventListener('click', call);
        item.append(button);
      }
      items.push(item);
    }
    $('history').replaceChildren(...items);
    $('past').hidden = !items.length;
  }

  function listen() {
    viewer.listen();
    overview.listen((part) => look(part));
    $('chosen').addEventListener('change', () => {
      give($('chosen').files[0]);
      $('chosen').value = '';
    });
    for (const name of ['dragover', 'dragleave', 'drop']) {
      document.addEventListener(name, (event) => {
        event.preventDefault();
        $('drop').classList.toggle('over', name === 'dragover');
        if (name === 'drop') give(event.dataTransfer.files[0]);
      });
    }
    document.addEventListener('paste', (event) => {
      const file = [...(event.clipboardData?.files || [])][0];
      if (file) give(file);
    });
    for (const id of ['left', 'right']) {
      $(id).addEventListener('change', () => {
        $(id).dataset.chosen = 'yes';
        showLayers();
      });
    }
    $('view').addEventListener('change', () => {
      chooseView($('view').value);
      fillLayers();
      showLayers();
    });
    $('detail').addEventListener('input', () => { tellDetail(); showLayers(); });
    $('part-size').addEventListener('change', () => {
      overview.resize(Number($('part-size').value));
      look(overview.part());
    });
    $('scale').addEventListener('change', () => {
      if (!$('scale').checkValidity() || !view) return;
      tellSize();
      partSizes(view.found.picture);
      overview.resize(Number($('part-size').value));
      look(overview.part());
    });
    $('class').addEventListener('change', () => { if (view) look(overview.part()); });
    $('more').addEventListener('click', () =>
      look(view.found.part || overview.part(), {seeds: MOST_GUESSES}));
    $('disagree').addEventListener('click', async () => {
      await look(view.found.part || overview.part(), {seeds: MOST_GUESSES, map: true});
      hoped = 'map';
      seenLayers = '';
    });
    $('make').addEventListener('click', make);
    $('cancel').addEventListener('click', async () => {
      if (sending) {
        sending.abort();
      } else if (current) {
        try { await server.stop(current); } catch (error) { complain(error); }
      }
    });
  }

  try {
    about = await server.about();
    $('model').textContent = about.name;
    $('detail-field').hidden = !about.mean;
    $('guesses').hidden = !about.draws;
    $('detail').value = Math.round(100 * about.detail);
    $('scale').value = about.factor;
    tellDetail();
    if (about.num_classes) {
      $('class-field').hidden = false;
      const names = [...Array(about.num_classes).keys()].map(
          (i) => [String(i), about.class_names[i] || `class ${i}`]);
      options($('class'), about.needs_class ? names : [['', 'unknown'], ...names]);
    }
    listen();
    await thumbnails();
    const last = server.kept().at(-1);
    if (last) await open(last);
  } catch (error) {
    complain(error);
  }
})();
