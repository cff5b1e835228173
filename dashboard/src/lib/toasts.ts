export interface Toast {
  id: number;
  key: string;
  title: string;
  detail: string;
}

const SHOWN = 3;

/** Messages that need to be seen; the same key is shown once at a time. */
export class ToastStore {
  private toasts: readonly Toast[] = [];
  private listeners = new Set<() => void>();
  private nextId = 1;

  list = (): readonly Toast[] => this.toasts;

  on = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  show(key: string, title: string, detail: string): void {
    if (this.toasts.some((toast) => toast.key === key)) return;
    this.set([...this.toasts, { id: this.nextId++, key, title, detail }].slice(-SHOWN));
  }

  dismiss(key: string): void {
    if (this.toasts.some((toast) => toast.key === key)) {
      this.set(this.toasts.filter((toast) => toast.key !== key));
    }
  }

  private set(toasts: readonly Toast[]): void {
    this.toasts = toasts;
    for (const listener of this.listeners) listener();
  }
}
