// Compares two layers of a picture, at whole pixels, with zoom and pan in step.
'use strict';
window.cdmViewer = (function () {
  const $ = (id) => document.getElementById(id);
  const ZOOMS = [0.125, 0.25, 0.5, 1, 2, 3, 4, 6, 8];
  const STEP = 40;  // CSS pixels that an arrow key moves the pictures
  const pixels = new Map();  // {address: promise of ImageData}
  const place = {zoom: 1, x: 0, y: 0, split: 0.5};
  let size = null;  // [height, width]

  // Returns the samples of a picture file.
  function load(address) {
    if (!pixels.has(address)) {
      const found = (async () => {
        const reply = await fetch(address);
        if (!reply.ok) throw new Error('A picture could not be loaded.');
        const bitmap = await createImageBitmap(await reply.blob());
        const canvas = document.createElement('canvas');
        canvas.width = bitmap.width;
        canvas.height = bitmap.height;
        const context = canvas.getContext('2d', {willReadFrequently: true});
        context.drawImage(bitmap, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height);
      })();
      pixels.set(address, found);
      found.catch(() => pixels.delete(address));
    }
    return pixels.get(address);
  }

  // Returns A + w (X - A), rounded, for each sample.
  function blended(mean, drawn, w) {
    const made = new ImageData(mean.width, mean.height);
    const [a, x, out] = [mean.data, drawn.data, made.data];
    for (let i = 0; i < out.length; i++) out[i] = a[i] + w * (x[i] - a[i]);
    return made;
  }

  async function samples(layer) {
    if (layer.mean === undefined) return load(layer.address);
    const [mean, drawn] = await Promise.all([load(layer.mean), load(layer.address)]);
    return blended(mean, drawn, layer.detail);
  }

  const turns = {before: 0, after: 0};

  // Shows a layer {address, label} or, blended, {mean, address, detail, label}.
  async function show(which, layer) {
    const turn = turns[which] += 1;
    const found = await samples(layer);
    if (turn !== turns[which]) return;  // Another one was asked for meanwhile.
    const canvas = $(which);
    if (canvas.width !== found.width || canvas.height !== found.height) {
      canvas.width = found.width;
      canvas.height = found.height;
    }
    canvas.getContext('2d').putImageData(found, 0, 0);
    canvas.setAttribute('aria-label', layer.label);
    canvas.dataset.layer = layer.name;
    if (!size || size[0] !== found.height || size[1] !== found.width) {
      size = [found.height, found.width];
      atPixels();
    }
  }

  const ratio = () => window.devicePixelRatio || 1;

  // One pixel of the picture is `zoom` pixels of the screen.
  function arrange() {
    const box = $('viewport');
    const scale = place.zoom / ratio();
    const [height, width] = size ? [size[0] * scale, size[1] * scale] : [0, 0];
    const inside = (at, length, room) => length <= room ?
      (room - length) / 2 : Math.min(0, Math.max(room - length, at));
    place.x = inside(place.x, width, box.clientWidth);
    place.y = inside(place.y, height, box.clientHeight);
    const whole = (v) => Math.round(v * ratio()) / ratio();
    for (const id of ['before', 'after']) {
      $(id).style.transform =
        `translate(${whole(place.x)}px, ${whole(place.y)}px) scale(${scale})`;
    }
    box.classList.toggle('sharp', place.zoom >= 1);
    $('over').style.clipPath = `inset(0 0 0 ${100 * place.split}%)`;
    $('handle').style.left = `${100 * place.split}%`;
    $('zoomed').textContent = `${+(100 * place.zoom).toFixed(1)} %`;
  }

  function zoomTo(zoom, x, y) {
    const box = $('viewport');
    const [cx, cy] = [x ?? box.clientWidth / 2, y ?? box.clientHeight / 2];
    const grow = zoom / place.zoom;
    place.x = cx - (cx - place.x) * grow;
    place.y = cy - (cy - place.y) * grow;
    place.zoom = zoom;
    arrange();
  }

  function zoomBy(steps, x, y) {
    const near = ZOOMS.findLastIndex((z) => z <= place.zoom + 1e-6);
    let to = near + steps;
    if (steps < 0 && ZOOMS[near] < place.zoom - 1e-6) to = near;
    zoomTo(ZOOMS[Math.min(ZOOMS.length - 1, Math.max(0, to))], x, y);
  }

  function fit() {
    if (!size) return;
    const box = $('viewport');
    const [h, w] = [box.clientHeight, box.clientWidth].map((v) => v * ratio());
    zoomTo(Math.min(8, h / size[0], w / size[1]));
  }

  // One to one, with the middle in the middle.
  function atPixels() {
    const box = $('viewport');
    place.zoom = 1;
    place.x = (box.clientWidth - size[1] / ratio()) / 2;
    place.y = (box.clientHeight - size[0] / ratio()) / 2;
    arrange();
  }

  function splitAt(share) {
    place.split = Math.min(1, Math.max(0, share));
    $('divider').value = Math.round(1000 * place.split);
    arrange();
  }

  function listen() {
    const box = $('viewport');
    const fingers = new Map();  // {pointer: [x, y]}
    let splitting = null;
    $('divider').addEventListener('input', () => splitAt($('divider').value / 1000));
    $('smaller').addEventListener('click', () => zoomBy(-1));
    $('larger').addEventListener('click', () => zoomBy(1));
    $('fit').addEventListener('click', fit);
    window.addEventListener('resize', arrange);
    const at = (event) => {
      const edge = box.getBoundingClientRect();
      return [event.clientX - edge.left, event.clientY - edge.top];
    };
    box.addEventListener('pointerdown', (event) => {
      box.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, at(event));
      if (event.target === $('handle')) splitting = event.pointerId;
    });
    box.addEventListener('pointermove', (event) => {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      const now = at(event);
      if (splitting === event.pointerId) {
        splitAt(now[0] / box.clientWidth);
      } else if (fingers.size === 2) {
        const [other] = [...fingers].filter(([id]) => id !== event.pointerId);
        const far = (p) => Math.hypot(p[0] - other[1][0], p[1] - other[1][1]) || 1;
        const zoom = Math.min(8, Math.max(0.125, place.zoom * far(now) / far(last)));
        zoomTo(zoom, (now[0] + other[1][0]) / 2, (now[1] + other[1][1]) / 2);
      } else {
        place.x += now[0] - last[0];
        place.y += now[1] - last[1];
        arrange();
      }
      fingers.set(event.pointerId, now);
    });
    for (const name of ['pointerup', 'pointercancel']) {
      box.addEventListener(name, (event) => {
        fingers.delete(event.pointerId);
        if (splitting === event.pointerId) splitting = null;
      });
    }
    box.addEventListener('wheel', (event) => {
      event.preventDefault();
      zoomBy(event.deltaY < 0 ? 1 : -1, ...at(event));
    }, {passive: false});
    box.addEventListener('keydown', (event) => {
      const moves = {
        ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0],
        ArrowUp: [0, STEP], ArrowDown: [0, -STEP],
      };
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (moves[event.key]) {
        place.x += moves[event.key][0];
        place.y += moves[event.key][1];
        arrange();
      } else if (event.key === '+' || event.key === '=') {
        zoomBy(1);
      } else if (event.key === '-') {
        zoomBy(-1);
      } else {
        return;
      }
      event.preventDefault();
    });
    splitAt(0.5);
  }

  function forget() {
    pixels.clear();
    size = null;
  }

  return {listen, show, forget, blended};
})();
