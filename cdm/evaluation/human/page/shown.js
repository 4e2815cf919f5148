// Shows the pictures of a trial for an exact time, and measures it.
'use strict';
window.cdmShown = (function () {
  const GAP = 16;  // between pictures, CSS pixels, as in study.css
  const MOST = 560;  // widest picture, CSS pixels, unless its own pixels need it
  const CROSS_MS = 500;

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const nextFrame = () => new Promise((done) => requestAnimationFrame(done));

  // Loads and decodes a picture, for as long as the network takes.
  async function decoded(name) {
    for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
      const image = new Image();
      image.draggable = false;
      image.src = 'media/' + name;
      try {
        await image.decode();
        return image;
      } catch (error) {
        await pause(wait);
      }
    }
  }

  async function load(trial) {
    const names = [...trial.stimulus];
    if (trial.lowres) names.push(trial.lowres);
    const images = await Promise.all(names.map(decoded));
    return {
      pictures: images.slice(0, trial.stimulus.length),
      lowres: trial.lowres ? images[images.length - 1] : null,
    };
  }

  // The largest whole number of screen pixels per picture pixel that fits;
  // below 1 the window is too small. The low-res picture lies between the two,
  // or above them where the window is narrow.
  function layout(trial, width, height, ratio) {
    const columns = trial.stimulus.length;
    const fit = (across, down) => Math.floor(Math.min(
      (width - GAP * (across - 1)) * ratio / (across * trial.width),
      (height - GAP * (down - 1)) * ratio / (down * trial.height)));
    const most = Math.max(1, Math.floor(MOST * ratio / trial.width));
    const beside = fit(columns + (trial.lowres ? 1 : 0), 1);
    const above = trial.lowres ? fit(columns, 2) : 0;
    const zoom = Math.min(most, Math.max(beside, above));
    return {zoom, above: above > beside};
  }

  function size(box, width, height, zoom, ratio) {
    box.style.width = (width * zoom / ratio) + 'px';
    box.style.height = (height * zoom / ratio) + 'px';
  }

  // Moves a box to whole pixels of the screen, so that none is blended.
  function snap(box, ratio) {
    box.style.transform = '';
    const at = box.getBoundingClientRect();
    const x = (Math.round(at.left * ratio) - at.left * ratio) / ratio;
    const y = (Math.round(at.top * ratio) - at.top * ratio) / ratio;
    box.style.transform = `translate(${x}px, ${y}px)`;
  }

  // Lays the boxes out. Returns the zoom; 0 if the window is too small.
  function place(trial, images, stage) {
    const ratio = window.devicePixelRatio || 1;
    const section = stage.parentElement;
    const style = getComputedStyle(stage);
    const rest = section.getBoundingClientRect().height -
        stage.getBoundingClientRect().height +
        section.getBoundingClientRect().top + window.scrollY;
    const height = window.innerHeight - rest -
        parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    const found = layout(trial, stage.clientWidth, height, ratio);
    if (found.zoom < 1) return 0;
    const holder = stage.querySelector('#pictures');
    const low = stage.querySelector('#lowres');
    const boxes = images.pictures.map((image, i) => {
      const box = document.createElement('div');
      box.className = 'box';
      image.alt = images.pictures.length === 1 ? 'The picture' :
          ['The left picture', 'The right picture'][i];
      box.append(image);
      size(box, trial.width, trial.height, found.zoom, ratio);
      return box;
    });
    low.hidden = !images.lowres;
    if (images.lowres) {
      const wide = trial.width * found.zoom;
      const each = Math.max(1, Math.floor(wide / images.lowres.naturalWidth));
      images.lowres.alt = 'The low-resolution picture';
      low.replaceChildren(images.lowres);
      size(low, images.lowres.naturalWidth, images.lowres.naturalHeight, each,
          ratio);
    }
    if (found.above) {
      const line = document.createElement('div');
      line.className = 'rest';
      holder.replaceChildren(low, line, ...boxes);
    } else {
      holder.replaceChildren(boxes[0], low, ...boxes.slice(1));
    }
    for (const box of images.lowres ? [...boxes, low] : boxes) snap(box, ratio);
    return found.zoom;
  }

  // Shows the pictures for so many seconds. Calls began(time of the first
  // frame). Returns what was measured when they are gone.
  async function show(stage, seconds, began) {
    let hidden = document.hidden;
    const look = () => { hidden = hidden || document.hidden; };
    document.addEventListener('visibilitychange', look);
    stage.classList.add('waiting');
    await pause(CROSS_MS);
    let start = await nextFrame();
    stage.classList.remove('waiting');
    stage.classList.add('shown');
    began(start);
    let frames = 0;
    for (let before = start; ;) {
      const now = await nextFrame();
      frames += 1;
      // The frame that is nearest to the time is the first without pictures.
      if (now - start + (now - before) / 2 >= 1000 * seconds) {
        stage.classList.remove('shown');
        document.removeEventListener('visibilitychange', look);
        return {shown_ms: now - start, frames, hidden};
      }
      before = now;
    }
  }

  return {load, place, show, pause, layout};
})();
