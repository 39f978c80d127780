// Before the first paint, so that nothing flashes: light or dark, as chosen here before; else as the system says.
{
  const KEY = 'eventsieve-theme';
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');
  const read = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // a browser that keeps nothing for this page
    }
  };
  const show = (theme) => {
    root.dataset.theme = theme;
    const button = document.getElementById('theme');
    if (button) button.textContent = theme === 'dark' ? 'Light' : 'Dark';
  };
  const current = () => read() ?? (system.matches ? 'dark' : 'light');

  show(current());
  system.addEventListener('change', () => show(current()));
  document.addEventListener('DOMContentLoaded', () => {
    show(current());
    document.getElementById('theme').addEventListener('click', () => {
      const chosen = root.dataset.theme === 'dark' ? 'light' : 'dark';
      show(chosen);
      try {
        localStorage.setItem(KEY, chosen);
      } catch {
        // Then it is forgotten with this page.
      }
    });
  });
}
