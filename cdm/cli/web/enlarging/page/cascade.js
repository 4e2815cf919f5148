// Draws from a cascade, and shows its stages side by side.
'use strict';
(async function () {
  const $ = (id) => document.getElementById(id);
  const server = window.cdmServer;
  let about;
  let current = null;
  let stopWatching = () => {};

  function complain(error) {
    $('problem').textContent = error.message || String(error);
    $('problem').hidden = false;
  }

  const className = (label) => label === null || label === undefined ? '' :
    about.class_names[label] || `class ${label}`;

  function section(key) {
    let found = document.getElementById(key);
    if (!found) {
      found = document.createElement('article');
      found.id = key;
      found.className = 'draw';
      const title = document.createElement('h2');
      const rows = document.createElement('div');
      rows.className = 'rows';
      const remove = document.createElement('button');
      remove.type = 'button';
      remove.textContent = 'Remove';
      remove.addEventListener('click', async () => {
        try { await server.remove(key); } catch (error) { complain(error); }
        server.keep(server.kept().filter((one) => one !== key));
        found.remove();
      });
      found.append(title, rows, remove);
      $('draws').prepend(found);
    }
    return found;
  }

  function show(view) {
    window.cdmBusy(view);
    if (view.state === 'failed' && view.error) complain({message: view.error});
    const place = section(view.key);
    const drawn = view.found.drawn;
    const what = drawn && className(drawn.label);
    place.querySelector('h2').textContent = what ? `${view.name}, ${what}` : view.name;
    place.setAttribute('aria-label', place.querySelector('h2').textContent);
    const rows = place.querySelector('.rows');
    const images = view.found.images || [];
    for (let n = rows.children.length; n < images.length; n++) {
      const figure = document.createElement('figure');
      const stages = document.createElement('div');
      stages.className = 'stages';
      images[n].forEach((name, i) => {
        const stage = about.stages[i];
        const link = document.createElement('a');
        link.href = server.media(view.key, name);
        link.download = `${view.name.replace(/\W+/g, '_')}_${n}_${stage.name}.png`;
        const image = document.createElement('img');
        image.src = link.href;
        image.alt = `Picture ${n + 1}, stage ${stage.name}, ${stage.size} pixels`;
        link.append(image);
        stages.append(link);
      });
      const caption = document.createElement('figcaption');
      caption.textContent = about.stages.map(
          (stage) => `${stage.name} ${stage.size}`).join(' → ');
      figure.append(stages, caption);
      rows.append(figure);
    }
  }

  function watch(key) {
    current = key;
    stopWatching();
    stopWatching = server.watch(key, show, () => {});
  }

  async function draw() {
    $('problem').hidden = true;
    const guidance = {};
    for (const input of $('weights').querySelectorAll('input')) {
      guidance[input.name] = Number(input.value);
    }
    const label = $('class').value;
    try {
      const found = await server.draw({
        count: Number($('count').value), seed: Number($('seed').value),
        label: about.num_classes && label !== '' ? Number(label) : null, guidance,
      });
      server.keep([...server.kept(), found.key]);
      watch(found.key);
    } catch (error) {
      complain(error);
    }
  }

  try {
    about = await server.about();
    $('model').textContent = `${about.name}: ` +
      about.stages.map((stage) => `${stage.name} ${stage.size}`).join(' → ');
    $('count').value = about.count;
    if (about.num_classes) {
      $('class-field').hidden = false;
      $('class').append(new Option('all in turn', ''));
      for (let i = 0; i < about.num_classes; i++) {
        $('class').append(new Option(className(i), String(i)));
      }
    }
    for (const [name, weight] of Object.entries(about.guided)) {
      const label = document.createElement('label');
      label.textContent = `Guidance of ${name} `;
      const input = document.createElement('input');
      Object.assign(input, {
        type: 'number', name, min: '0', max: '100', step: '0.1', value: String(weight),
      });
      label.append(input);
      $('weights').append(label);
    }
    $('asked').addEventListener('submit', (event) => {
      event.preventDefault();
      draw();
    });
    $('cancel').addEventListener('click', async () => {
      try { await server.stop(current); } catch (error) { complain(error); }
    });
    for (const key of server.kept()) {
      try {
        show(await server.look(key));
      } catch (error) {
        server.keep(server.kept().filter((one) => one !== key));
      }
    }
    const last = server.kept().at(-1);
    if (last) watch(last);
  } catch (error) {
    complain(error);
  }
})();
