// Light or dark: the saved choice, else that of the system. It runs before the first paint, so that nothing flashes.
{
  const KEY = 'eventsieve-theme';
  const root = document.documentElement;
  const system = matchMedia('(prefers-color-scheme: dark)');
  const read = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // this browser has no storage for the page
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
        // The choice is then lost with this page.
      }
    });
  });
}
