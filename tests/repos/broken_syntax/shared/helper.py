def help():
    return (
